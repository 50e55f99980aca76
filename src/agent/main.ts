// The agent's program on a source machine: run, register, way, status, uninstall.

import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { parentPort } from "node:worker_threads";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { asFault, Fault, toReport } from "../contract/errors.ts";
import { runAgent } from "./agent.ts";
import { rungs, type Rung } from "./changes/ladder.ts";
import { readMachineFacts } from "./disks/machine-facts.ts";
import type { Endpoint } from "./identity/appliance-client.ts";
import { checkAgentWays } from "./identity/check-ways.ts";
import { loadIdentity, registerAgent } from "./identity/registration.ts";
import { givenWayShape, identityShape, readState, replicationStateShape, stateFiles, writeState } from "./identity/state-folder.ts";
import { openSystemCalls } from "./kernel/system-calls.ts";
import { openLinuxSource } from "./linux-source.ts";
import { createAgentLog } from "./log.ts";
import { serveBlockJobs } from "./sender/block-work.ts";
import { createReadStall } from "./sender/guest-load.ts";
import { agentPlaces, uninstalledStatus } from "./unit.ts";
import { agentVersion } from "./version.ts";

const usage = `usage: agent run [--state DIR] [--cores N] [--tracking ebpf|tracefs|checksum]
         (N processors while disks are copied, under one unless told; the best rung of change tracking that may be used)
       agent register --appliance HOST:PORT --ca FILE --passphrase-file FILE [--state DIR]
       agent way --appliance HOST[:PORT] [--data-port PORT] [--state DIR]
         (where the appliance is now, for an agent that was off while it moved; a running agent takes it up by itself)
       agent status [--json] [--state DIR]
       agent uninstall [--state DIR]
`;

const options = {
  state: { type: "string", default: agentPlaces.stateFolder },
  appliance: { type: "string" },
  ca: { type: "string" },
  "passphrase-file": { type: "string" },
  "data-port": { type: "string" },
  json: { type: "boolean", default: false },
  cores: { type: "string", default: "1" },
  tracking: { type: "string", default: "ebpf" },
} as const;

async function main(args: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
  switch (positionals[0]) {
    case "run":
      return await run(values.state, { cores: parseCores(values.cores), bestRung: parseRung(values.tracking) });
    case "register":
      return await register({
        stateFolder: values.state,
        appliance: values.appliance,
        ca: values.ca,
        passphraseFile: values["passphrase-file"],
      });
    case "way":
      return await giveWay(values.state, { appliance: values.appliance, dataPort: values["data-port"] });
    case "status":
      return await printStatus(values.state, values.json ? "json" : "text");
    case "uninstall":
      return await (await openLinuxSource({ clock: systemClock, random: systemRandom, stateFolder: values.state })).uninstall();
    case undefined:
    default:
      throw new Fault("InputInvalid", `unknown command\n${usage}`);
  }
}

function parseCores(text: string): number {
  const cores = Number(text);
  if (Number.isInteger(cores) && cores >= 1 && cores <= availableParallelism()) return cores;
  throw new Fault("InputInvalid", `--cores is a whole number from 1 to ${availableParallelism()}, which this machine has`);
}

function parseRung(text: string): Rung {
  const rung = rungs.find((one) => one === text);
  if (rung !== undefined) return rung;
  throw new Fault("InputInvalid", `--tracking is one of ${rungs.join(", ")}`);
}

async function run(stateFolder: string, { cores, bestRung }: { readonly cores: number; readonly bestRung: Rung }): Promise<void> {
  const ending = new AbortController();
  const end = (): void => ending.abort();
  process.once("SIGTERM", end);
  process.once("SIGINT", end);
  const log = createAgentLog({ clock: systemClock, write: (line) => void process.stderr.write(line) });
  const source = await openLinuxSource({ clock: systemClock, random: systemRandom, stateFolder, bestRung });
  const parallel = cores === 1 ? {} : { cpuShareMax: cores, threads: { count: cores, file: import.meta.filename } };
  const readStall = createReadStall(systemClock);
  const outcome = await runAgent(
    { readStall, source, stateFolder, clock: systemClock, random: systemRandom, log, ...parallel },
    ending.signal,
  );
  if (outcome === "stopped") return;
  await source.uninstall();
  process.exitCode = uninstalledStatus; // The unit says that this status is not followed by a restart.
}

interface RegisterArguments {
  readonly stateFolder: string;
  readonly appliance: string | undefined;
  readonly ca: string | undefined;
  readonly passphraseFile: string | undefined;
}

async function register(given: RegisterArguments): Promise<void> {
  const { appliance, ca, passphraseFile } = given;
  if (appliance === undefined || ca === undefined || passphraseFile === undefined)
    throw new Fault("InputInvalid", `an option is missing\n${usage}`);
  const identity = await registerAgent({
    stateFolder: given.stateFolder,
    appliance: parseEndpoint(appliance),
    authorityPem: await readFile(ca, "utf8"),
    passphraseFile,
    facts: await readMachineFacts(openSystemCalls()),
  });
  process.stdout.write(`${JSON.stringify({ machineId: identity.machineId })}\n`);
}

/** Kept only when the agent's own appliance answers there: by the authority that it has trusted since it was registered. */
async function giveWay(
  stateFolder: string,
  given: { readonly appliance: string | undefined; readonly dataPort: string | undefined },
): Promise<void> {
  if (given.appliance === undefined) throw new Fault("InputInvalid", `an option is missing\n${usage}`);
  const { identity, trust } = await loadIdentity(stateFolder);
  const { host, port: controlPort } = parseEndpoint(given.appliance);
  const way = givenWayShape.safeParse({ host, controlPort, dataPort: Number(given.dataPort ?? identity.dataPort) });
  if (!way.success) throw new Fault("InputInvalid", "the address or a port is not right", { cause: way.error });
  const checks = await checkAgentWays({ ...way.data, trust, clock: systemClock });
  const failed = checks.find(({ verdict }) => verdict === "fail");
  if (failed !== undefined)
    throw new Fault("ApplianceUnreachable", `the appliance does not answer at ${host}: ${failed.answer}`, {
      evidence: { check: failed.id },
      ...(failed.repair === undefined ? {} : { action: failed.repair }),
    });
  await writeState(stateFolder, stateFiles.givenWay, way.data);
  process.stdout.write(`${JSON.stringify({ machineId: identity.machineId, ...way.data })}\n`);
}

function parseEndpoint(text: string): Endpoint {
  const [, host, port] = /^(.+?)(?::(\d+))?$/.exec(text) ?? [];
  if (host === undefined) throw new Fault("InputInvalid", "the appliance's address is empty");
  return { host: host.replace(/^\[|\]$/g, ""), port: Number(port ?? "443") };
}

async function printStatus(stateFolder: string, form: "json" | "text"): Promise<void> {
  const identity = await readState(stateFolder, stateFiles.identity, identityShape);
  const replication = await readState(stateFolder, stateFiles.replication, replicationStateShape);
  const status = {
    version: agentVersion,
    isRegistered: identity !== undefined,
    ...identity,
    policy: replication?.policy,
    base: replication?.base,
  };
  if (form === "json") process.stdout.write(`${JSON.stringify(status)}\n`);
  else
    process.stdout.write(
      identity === undefined
        ? "not registered\n"
        : `machine ${identity.machineId}, appliance ${identity.applianceHost}, newest point ${replication?.base?.pointId ?? "none"}\n`,
    );
}

try {
  // As a thread, this file works on blocks for the agent that started it.
  if (parentPort === null) await main(process.argv.slice(2));
  else serveBlockJobs(parentPort);
} catch (error) {
  const fault = asFault(error, "run the agent");
  process.stderr.write(`${JSON.stringify({ level: "error", message: fault.message, fault: toReport(fault) })}\n`);
  process.exitCode = fault.exitCode;
}
