// The appliance's admin socket: JSON routes for the command line, open only to the user that runs the appliance.

import { chmod, rm } from "node:fs/promises";
import { join } from "node:path";
import Fastify from "fastify";
import { toTimestamp } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import type { Log } from "../../base/log.ts";
import { adminRoutes, adminSocketName, type AdminRequest, type AdminResponse, type AdminRoute } from "../../contract/appliance-admin.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import { limitsChangeShape } from "../../contract/line-limits.ts";
import type { CheckResult } from "../../connectivity/probe.ts";
import { parseBody } from "../control/json-https.ts";
import type { Machine } from "../control/machine-registry.ts";
import { putVcenter } from "../discovery/discover.ts";
import { normaliseThumbprint, type VcenterTrust } from "../discovery/vcenter-session.ts";
import { applianceVersion, parseRegistrationKey } from "../identity/hub-registration.ts";
import { makeSetupPassword } from "../setup/setup-password.ts";
import { setupFingerprint, setupUrl } from "../setup/setup-identity.ts";
import { createProfileHandlers } from "./profile-handlers.ts";
import { createVaultHandlers } from "./vault-handlers.ts";
import { spoolBytesOf } from "../ingest/spool.ts";
import type { Appliance } from "../main.ts";

const bodyBytesMax = 256 << 10;

type Handlers = {
  readonly [Route in AdminRoute]: (request: Required<AdminRequest<Route>> | AdminRequest<Route>) => Promise<AdminResponse<Route>>;
};

/** The socket file has mode 0600. A file left by a killed appliance is replaced. */
export async function startAdminServer(
  appliance: Appliance,
  options: { readonly stateFolder: string; readonly log: Log },
): Promise<AsyncDisposable> {
  const { stateFolder, log } = options;
  const handlers = createHandlers(appliance);
  const server = Fastify({ bodyLimit: bodyBytesMax });
  const add = (name: AdminRoute): void => {
    const { path, request: shape } = adminRoutes[name];
    const handle = handlers[name] as (request: unknown) => Promise<unknown>; // The shape of the same name proves the request.
    server.post(path, async (request, reply) => {
      try {
        return await handle(parseBody<unknown>(shape, request.body ?? {}));
      } catch (error) {
        const fault = asFault(error, `carry out ${name}`);
        log.warn("admin call refused", { call: name, fault: fault.code, reason: fault.message });
        return await reply.code(fault.httpStatus).send(toReport(fault));
      }
    });
  };
  for (const name of Object.keys(adminRoutes)) add(name as AdminRoute); // The table's own keys.
  const path = join(stateFolder, adminSocketName);
  await rm(path, { force: true });
  await server.listen({ path });
  await chmod(path, 0o600);
  return {
    [Symbol.asyncDispose]: async () => {
      await server.close();
      await rm(path, { force: true });
    },
  };
}

/** One for each action, for the command line and the set-up page alike. */
export function createHandlers(appliance: Appliance): Handlers {
  return {
    ...createHubHandlers(appliance),
    ...createAccountHandlers(appliance),
    ...createMachineHandlers(appliance),
    ...createVaultHandlers(() => appliance.vault()),
    ...createProfileHandlers(appliance),
    metrics: async () => ({ text: await appliance.metrics.text() }),
    showLimits: async () => await Promise.resolve(appliance.limits.state()),
    changeLimits: async (change) => await Promise.resolve(appliance.limits.change(limitsChangeShape.parse(change))),
  };
}

function createHubHandlers(
  appliance: Appliance,
): Pick<Handlers, "status" | "check" | "register" | "announce" | "passphrase" | "setupPassword"> {
  return {
    setupPassword: async () => await newSetupPassword(appliance),
    status: async () => await statusOf(appliance),
    check: async ({ registrationKey }) => {
      const key = registrationKey === undefined ? undefined : parseRegistrationKey(registrationKey);
      return { checks: (await appliance.checkHops(key)).map(toCheck) };
    },
    register: async ({ registrationKey }) => {
      const { registration, checks } = await appliance.register(parseRegistrationKey(registrationKey));
      return { applianceId: registration.applianceId, vaultResourceId: registration.key.vaultResourceId, checks: checks.map(toCheck) };
    },
    announce: async ({ addresses }) => {
      const { ways, known, unknown } = await appliance.ways.announce(addresses);
      return { ways: [...ways], known: known.map(toToldMachine), unknown: unknown.map(toToldMachine) };
    },
    passphrase: async () => await Promise.resolve({ passphrase: appliance.authority.passphrase, authorityPem: appliance.authority.caPem }),
  };
}

function createAccountHandlers(appliance: Appliance): Pick<Handlers, "addCredential" | "listCredentials" | "addVcenter" | "listVcenters"> {
  const { credentials, vcenters } = appliance;
  return {
    addCredential: async ({ secret, keyPassphrase, sudoPassword, ...credential }) => {
      const added = credentials.put(
        credential,
        credential.kind === "linux-key"
          ? {
              kind: "key",
              privateKeyPem: secret,
              ...(keyPassphrase === undefined ? {} : { keyPassphrase }),
              ...(sudoPassword === undefined ? {} : { sudoPassword }),
            }
          : { kind: "password", password: secret },
      );
      vcenters.announceChange();
      return await Promise.resolve(added);
    },
    listCredentials: async () => await Promise.resolve({ credentials: [...credentials.list()] }),
    addVcenter: async (request) => {
      const { name, host, port = 443 } = request;
      const credentialId = credentials.find(request.credential).credentialId;
      const added = await putVcenter(appliance.discovery([host]), { name, host, port, credentialId, trust: trustOf(request) });
      const summary = vcenters.summaries().find((each) => each.vcenterId === added.vcenterId);
      if (summary === undefined) throw new Fault("NotFound", "the vCenter was removed in between");
      return summary;
    },
    listVcenters: async () => await Promise.resolve({ vcenters: [...vcenters.summaries()] }),
  };
}

function createMachineHandlers(appliance: Appliance): Pick<Handlers, "discover" | "addMachine" | "listMachines" | "forgetHostKey"> {
  const { vcenters, registry, ledger, guests } = appliance;
  return {
    discover: async () => {
      await appliance.discover();
      return { machines: [...vcenters.machines()] };
    },
    addMachine: async ({ address, credential }) => await guests.addByHand(address, credential),
    listMachines: async () =>
      await Promise.resolve({
        machines: registry.list().map((machine) => ({
          machineId: machine.machineId,
          ...(machine.infrastructureId === undefined ? {} : { infrastructureId: machine.infrastructureId }),
          hostname: machine.facts.hostname,
          isProtected: machine.protectedBy !== undefined,
          lastSeenAt: toTimestamp(machine.seenAtMs),
          agentVersion: machine.agentVersion,
          pointCount: ledger.countOf(machine.machineId),
          ...(machine.state === undefined ? {} : { state: machine.state }),
          flow: appliance.flow.flowOf(machine.machineId, machine.state),
        })),
      }),
    forgetHostKey: async ({ address }) => {
      const hostPort = /:\d+$/.test(address) ? address : `${address}:${appliance.config.sshPort}`;
      return await Promise.resolve({ wasKnown: appliance.hostKeys.forget(hostPort) });
    },
  };
}

async function newSetupPassword({ facts, config }: Appliance): Promise<AdminResponse<"setupPassword">> {
  const fingerprint = setupFingerprint(facts);
  if (config.setupPort === undefined || fingerprint === undefined) {
    throw new Fault("StateConflict", "this appliance serves no set-up page: its settings name no port for it", {
      action: "run: watari appliance init with --setup-port 44315, then start the appliance again",
    });
  }
  const urls = config.listenAddresses.map((address) => setupUrl(address, config.setupPort ?? 0));
  return { password: await makeSetupPassword(facts, systemRandom), urls, fingerprint };
}

async function statusOf(appliance: Appliance): Promise<AdminResponse<"status">> {
  const { config, registration, ports, isHubReached, vcenters, registry, spool, health } = appliance;
  return {
    name: config.name,
    version: applianceVersion,
    pid: process.pid,
    ...ports,
    ...(registration === undefined
      ? {}
      : { registration: { applianceId: registration.applianceId, vaultResourceId: registration.key.vaultResourceId } }),
    isHubReached,
    vcenters: [...vcenters.summaries()],
    machineCount: registry.list().length,
    spoolBytes: await spoolBytesOf(spool),
    spoolBytesMax: spool.spoolBytesMax,
    healthErrors: health.reports(),
    machines: appliance.flows().map(({ machineId, hostname, flow }) => ({ machineId, hostname, flow })),
  };
}

function toToldMachine({ machineId, facts, seenAtMs }: Machine): AdminResponse<"announce">["known"][number] {
  return { machineId, hostname: facts.hostname, lastSeenAt: toTimestamp(seenAtMs) };
}

function trustOf(request: { readonly caPem?: string | undefined; readonly thumbprint?: string | undefined }): VcenterTrust {
  if (request.thumbprint !== undefined) return { kind: "thumbprint", sha256: normaliseThumbprint(request.thumbprint) };
  return request.caPem === undefined ? { kind: "system" } : { kind: "authority", caPem: request.caPem };
}

function toCheck(check: CheckResult): AdminResponse<"check">["checks"][number] {
  const { id, from, to, tried, answer, latencyMs, verdict, repair } = check;
  return { name: id, from: from ?? check.role, to, tried, answer, latencyMs, verdict, repair: repair ?? "" };
}
