// The appliance's place at its hub: every hop is checked, then the key is used once; the result is kept sealed, or nothing is.

import { createHmac } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { fromTimestamp } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import {
  applianceProtocolVersion,
  applianceRegisterResponseShape,
  privateServices,
  registrationKeyShape,
  storageGrantShape,
  type RegistrationKey,
  type StorageGrant,
} from "../../contract/appliance-protocol.ts";
import { Fault, fromReport } from "../../contract/errors.ts";
import { applianceIdShape, vaultIdShape } from "../../contract/shapes.ts";
import { createConnector } from "../../connectivity/connector.ts";
import type { PathOptions } from "../../connectivity/path-opener.ts";
import { probeAll, type CheckResult, type ProbeTarget } from "../../connectivity/probe.ts";
import { parseTopology, topologyFromKey, type Topology } from "../../connectivity/topology.ts";
import type { ApplianceConfig } from "../config/config.ts";
import { createHubClient } from "../hub/hub-client.ts";
import type { SealedFacts } from "../state/facts.ts";
import { keepVaultKeys } from "./vault-keys.ts";
import { createSigningRequest } from "./site-authority.ts";

export const applianceVersion = "0.1.0";

const keptKeyShape = registrationKeyShape.omit({ secret: true });

const keyPairShape = z.object({ certPem: z.string(), privateKeyPem: z.string() });

const registrationShape = z.object({
  applianceId: applianceIdShape,
  name: z.string(),
  certPem: z.string(),
  privateKeyPem: z.string(),
  hubCaPem: z.string(),
  /** What was valid before, until the hub has accepted the certificate above once. */
  previous: keyPairShape.optional(),
  key: keptKeyShape,
  /** The key is that of the registration; later ones are a fact of their own (vault-keys.ts). */
  vault: z.object({ vaultId: vaultIdShape, keyId: z.string(), key: z.string() }),
});
export type HubRegistration = z.infer<typeof registrationShape>;

const draftShape = z.object({ keyId: z.string(), csrPem: z.string(), keyPem: z.string() });

export interface RegistrationParts {
  readonly config: ApplianceConfig;
  readonly facts: SealedFacts;
  readonly clock: Clock;
  readonly log: Log;
  /** Names that are reached on this side whatever the settings say: the vCenters. */
  readonly siteNames: readonly string[];
}

/** Parses a registration key file. Throws InputInvalid, never showing the key. */
export function parseRegistrationKey(text: string): RegistrationKey {
  try {
    return registrationKeyShape.parse(JSON.parse(text));
  } catch (error) {
    const problems = error instanceof z.ZodError ? error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`) : ["not JSON"];
    throw new Fault("InputInvalid", "could not read the registration key", {
      evidence: { problems: problems.slice(0, 10) },
      action: "give the file that the hub wrote for this vault, unchanged",
    });
  }
}

export function readRegistration(facts: SealedFacts): HubRegistration | undefined {
  const text = facts.read("hubRegistration");
  return text === undefined ? undefined : registrationShape.parse(JSON.parse(text));
}

export function writeRegistration(facts: SealedFacts, registration: HubRegistration): void {
  facts.write("hubRegistration", JSON.stringify(registration));
}

export function readGrant(facts: SealedFacts): StorageGrant | undefined {
  const text = facts.read("storageGrant");
  return text === undefined ? undefined : storageGrantShape.parse(JSON.parse(text));
}

export function writeGrant(facts: SealedFacts, grant: StorageGrant): void {
  facts.write("storageGrant", JSON.stringify(grant));
}

/** What the appliance may reach: the key's names, the site's settings, the vCenters. */
export function topologyOf(
  key: Parameters<typeof topologyFromKey>[0],
  { config, siteNames }: Pick<RegistrationParts, "config" | "siteNames">,
): Topology {
  const { proxyUrl, proxyCredentialsFile, dnsServers, hosts, siteRanges } = config;
  return topologyFromKey(key, {
    dnsServers,
    hosts,
    siteRanges,
    siteNames: [...new Set([...config.siteNames, ...siteNames])],
    ...(proxyUrl === undefined
      ? {}
      : { proxy: { url: proxyUrl, ...(proxyCredentialsFile === undefined ? {} : { credentialsFile: proxyCredentialsFile }) } }),
  });
}

/** The way to vCenters and guests, also before a registration. */
export function siteTopologyOf(
  registration: HubRegistration | undefined,
  { config, siteNames }: Pick<RegistrationParts, "config" | "siteNames">,
): Topology {
  if (registration !== undefined) return topologyOf(registration.key, { config, siteNames });
  const { dnsServers, hosts, siteRanges } = config;
  return parseTopology({ dnsServers, hosts, siteRanges, siteNames: [...config.siteNames, ...siteNames] });
}

/** Which names of a key are walked to, and how far: names only as far as an answer and a connection, clock as far as a date. */
export type WayPart = "all" | "names" | "public" | "clock";
type KnownNames = Pick<RegistrationKey, "services" | "privateNames" | "privateRanges" | "publicNames" | "hubCaPem">;

/** Walks every hop to every name of the key. Changes nothing. */
export async function checkHops(key: KnownNames, parts: RegistrationParts, signal?: AbortSignal): Promise<readonly CheckResult[]> {
  return await checkPart(key, "all", parts, signal);
}

export async function checkPart(
  key: KnownNames,
  part: WayPart,
  parts: RegistrationParts,
  signal?: AbortSignal,
): Promise<readonly CheckResult[]> {
  return await probeAll(targetsOf(key, part, parts.config.hubPort), pathOptions(key, parts), signal);
}

function targetsOf(key: KnownNames, part: WayPart, port: number): readonly ProbeTarget[] {
  const role = "appliance";
  const services = privateServices.flatMap((id): ProbeTarget[] => {
    const host = key.services[id];
    return host === undefined ? [] : [{ id, role, host, port, upTo: "https", path: "/" }];
  });
  const served = new Set(services.map((target) => target.host));
  const others = key.privateNames
    .filter((host) => !served.has(host))
    .map((host): ProbeTarget => ({ id: host, role, host, port, upTo: "tls" }));
  const open = key.publicNames
    .filter((host) => !host.startsWith("."))
    .map((host): ProbeTarget => ({ id: host, role, host, port, upTo: "tls" }));
  switch (part) {
    case "all":
      return [...services, ...others, ...open];
    case "names":
      return [...services, ...others].map((target) => ({ ...target, upTo: "tcp" }));
    case "public":
      return open;
    case "clock":
      return services.slice(0, 1);
  }
}

export function pathOptions(key: KnownNames, parts: RegistrationParts): PathOptions {
  return { topology: topologyOf(key, parts), clock: parts.clock, log: parts.log, caPem: key.hubCaPem };
}

/** Throws the first failed check's own Fault, with every failed check named in the evidence. */
function requireHops(checks: readonly CheckResult[]): void {
  const failed = checks.filter((check) => check.verdict === "fail");
  const first = failed[0];
  if (first === undefined) return;
  const failedChecks = failed.map((check) => `${check.id}: ${check.answer}`.slice(0, 400)).slice(0, 50);
  if (first.fault === undefined) {
    throw new Fault("HopCheckFailed", `the way to the hub fails at ${first.id}`, { evidence: { failedChecks } });
  }
  const report = first.fault;
  throw fromReport({
    ...report,
    evidence: { ...report.evidence, failedChecks },
    ...(first.repair === undefined ? {} : { action: first.repair }),
  });
}

/**
 * Checks, then registers. Nothing is kept when a check fails or the hub refuses; the same call works after the repair.
 * When the hub's answer was lost on the way, the same signing request is shown again with the same key.
 */
export async function registerAtHub(
  key: RegistrationKey,
  parts: RegistrationParts,
  signal?: AbortSignal,
): Promise<{ readonly registration: HubRegistration; readonly checks: readonly CheckResult[] }> {
  const { facts, clock } = parts;
  const present = readRegistration(facts);
  if (present !== undefined && present.key.vaultId !== key.vaultId) {
    throw new Fault("StateConflict", "this appliance is registered in another vault", {
      evidence: { vault: present.key.vaultResourceId },
      action: "set up another appliance for the other vault",
      retry: "never",
    });
  }
  if (fromTimestamp(key.expiresAt) <= clock.nowMs()) {
    throw new Fault("KeyExpired", "could not register: the registration key has expired", {
      evidence: { keyId: key.keyId, expiresAt: key.expiresAt },
    });
  }
  const checks = await checkHops(key, parts, signal);
  requireHops(checks);
  const registration = await useRegistrationKey(key, parts, signal);
  return { registration, checks };
}

/** The registration alone, for whoever knows that the way to the hub is open. */
export async function useRegistrationKey(key: RegistrationKey, parts: RegistrationParts, signal?: AbortSignal): Promise<HubRegistration> {
  const { facts, config } = parts;
  const draft = await draftFor(key.keyId, parts);
  await using connector = createConnector(pathOptions(key, parts));
  const hub = createHubClient({ services: key.services, port: config.hubPort, dispatcher: () => connector.dispatcher });
  const proof = createHmac("sha256", Buffer.from(key.secret, "base64url")).update(draft.csrPem, "utf8").digest("hex");
  const body = {
    protocolVersion: applianceProtocolVersion,
    applianceVersion,
    name: config.name,
    keyId: key.keyId,
    csrPem: draft.csrPem,
    proof,
  };
  try {
    const answer = await retryUnreached(
      parts,
      async () => await hub.call("register", body, applianceRegisterResponseShape, signal),
      signal,
    );
    const { secret: _secret, ...kept } = key;
    const registration: HubRegistration = {
      applianceId: answer.applianceId,
      name: config.name,
      certPem: answer.certificatePem,
      privateKeyPem: draft.keyPem,
      hubCaPem: answer.caPem,
      key: kept,
      vault: { vaultId: answer.vault.vaultId, keyId: answer.vault.keyId, key: answer.vault.key },
    };
    facts.write("storageGrant", JSON.stringify(answer.storage));
    keepVaultKeys(facts, answer.vault.keys ?? { current: 1, keys: [{ generation: 1, key: answer.vault.key }] });
    writeRegistration(facts, registration); // Last: a registration is there when all of it is.
    facts.remove("hubRegistrationDraft");
    return registration;
  } catch (error) {
    const isUnknown = error instanceof Fault && error.retry !== "never";
    if (!isUnknown) facts.remove("hubRegistrationDraft");
    throw error;
  }
}

const attemptsMax = 3;
const attemptWaitMs = 1_000;

/** The key and its signing request are answered the same each time, so that a line that breaks just then costs a second and no call of a person. */
async function retryUnreached<T>(
  { clock, log }: Pick<RegistrationParts, "clock" | "log">,
  call: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "HubUnreachable" || attempt >= attemptsMax) throw error;
      log.warn("registration is tried again", { attempt, reason: error.evidence["reason"] });
      await clock.sleep(attemptWaitMs, signal);
    }
  }
}

async function draftFor(keyId: string, { facts, config }: RegistrationParts): Promise<z.infer<typeof draftShape>> {
  const text = facts.read("hubRegistrationDraft");
  const present = text === undefined ? undefined : draftShape.parse(JSON.parse(text));
  if (present?.keyId === keyId) return present;
  const draft = { keyId, ...(await createSigningRequest(config.name)) };
  facts.write("hubRegistrationDraft", JSON.stringify(draft));
  return draft;
}
