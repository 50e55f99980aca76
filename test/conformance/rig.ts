// A hub for conformance tests: the real command `watari hub --ephemeral` as a child, or one that runs already; and how SDKs call it.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import type { SiteRecoveryManagementClient } from "@azure/arm-recoveryservices-siterecovery";
import { ClientSecretCredential } from "@azure/identity";
import { z } from "zod";

const factsShape = z.strictObject({
  endpoint: z.url(),
  authority: z.url(),
  caFile: z.string(),
  tenantId: z.uuid(),
  clientId: z.uuid(),
  clientSecret: z.string().min(20),
  subscriptionId: z.uuid(),
  resourceGroup: z.string(),
  vault: z.string(),
});
export type RigFacts = z.infer<typeof factsShape>;

type ClientOptions = NonNullable<ConstructorParameters<typeof SiteRecoveryManagementClient>[2]>;
/** An SDK's own way to look at each of its answers. */
export type AdditionalPolicies = NonNullable<ClientOptions["additionalPolicies"]>;

export interface Rig extends AsyncDisposable {
  readonly facts: RigFacts;
  readonly endpoint: string;
  readonly subscriptionId: string;
  /** Group and vault that are there from the start, with the simulated site's appliance registered in the vault. */
  readonly resourceGroup: string;
  readonly vault: string;
  readonly credential: ClientSecretCredential;
  /** Last argument of every client: `new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions)`. */
  readonly clientOptions: { readonly endpoint: string; readonly additionalPolicies?: AdditionalPolicies };
  /** An access token, for what no SDK has. */
  token(): Promise<string>;
  /** Undefined for a hub that was not started here. */
  readonly child: ChildProcess | undefined;
}

export interface RigOptions {
  /** Machines of the simulated site; 0 unless told. */
  readonly machines?: number;
  /** Appliances that all see them; 1 unless told. */
  readonly appliances?: number;
  /** What an order, a boot or a fill takes there. */
  readonly paceSeconds?: number;
  /** The hub's log is appended here; none unless told. */
  readonly logFile?: string;
}

const projectRoot = join(import.meta.dirname, "../..");
/** JSON file with the facts of a hub that runs already, as the command prints them: conformance against a lab. */
const runningHubVariable = "WATARI_CONFORMANCE_HUB";

/** From here on every TLS connection of this process trusts the hub, as with NODE_EXTRA_CA_CERTS; the SDKs are used as they are. */
export async function startRig(options: RigOptions = {}): Promise<Rig> {
  const file = process.env[runningHubVariable];
  const { facts, child } =
    file === undefined ? await startCommand(options) : { facts: parseFacts(await readFile(file, "utf8")), child: undefined };
  setDefaultCACertificates([...getCACertificates("default"), await readFile(facts.caFile, "utf8")]);
  const { endpoint, authority, tenantId, clientId, clientSecret, subscriptionId, resourceGroup, vault } = facts;
  const credential = new ClientSecretCredential(tenantId, clientId, clientSecret, {
    authorityHost: authority,
    disableInstanceDiscovery: true,
  });
  return {
    facts,
    endpoint,
    subscriptionId,
    resourceGroup,
    vault,
    credential,
    clientOptions: { endpoint },
    token: async () => (await credential.getToken(`${endpoint}/.default`)).token,
    child,
    [Symbol.asyncDispose]: async () => {
      if (child !== undefined) await stopCommand(child);
    },
  };
}

async function startCommand(options: RigOptions): Promise<{ readonly facts: RigFacts; readonly child: ChildProcess }> {
  const { machines = 0, appliances = 1, paceSeconds, logFile } = options;
  const pace = paceSeconds === undefined ? [] : ["--pace", String(paceSeconds)];
  const log = logFile === undefined ? [] : ["--log-file", logFile];
  const flags = [
    "--disable-warning=ExperimentalWarning",
    "src/main.ts",
    "hub",
    "--ephemeral",
    "--simulate",
    String(machines),
    "--appliances",
    String(appliances),
    ...pace,
    ...log,
  ];
  // The child holds our pipe as its stdin: should this process be killed, the hub stops by itself.
  const child = spawn(process.execPath, [...flags, "--check-answers", "--stop-with-stdin"], {
    cwd: projectRoot,
    stdio: ["pipe", "pipe", "inherit"],
  });
  for await (const line of createInterface({ input: child.stdout })) return { facts: parseFacts(line), child };
  throw new Error(`the hub ended with exit code ${child.exitCode} before it was ready`);
}

function parseFacts(text: string): RigFacts {
  return factsShape.parse(JSON.parse(text));
}

async function stopCommand(child: ChildProcess): Promise<void> {
  if (child.signalCode !== null) return;
  assert.ok(child.exitCode === null || child.exitCode === 0, "the hub ended by itself: stderr says why");
  if (child.exitCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  assert.deepEqual(await ended, [0, null]);
}
