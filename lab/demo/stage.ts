// The demo's stage: the lab, the two programs in their zones, and the operator's desk from which every command is given.

import { access, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { type CommandResult, runCommand, tryCommand } from "../../src/base/run-command.ts";
import { writeFileAtomic } from "../../src/base/atomic-file.ts";
import { Fault, fromReport } from "../../src/contract/errors.ts";
import { faultReportShape } from "../../src/contract/shapes.ts";
import type { LabFacts } from "../lab.ts";
import { labPlace, type LabPlace, type Zone } from "../place.ts";
import { endProcesses, isAlive, labExec, startDaemon, waitUntil } from "../processes.ts";

const launcher = fileURLToPath(new URL("../../watari", import.meta.url));
const demoRoot = "/var/lib/watari-demo";

/** Files of one demo; everything under `folder` goes when the demo ends. */
export interface Stage {
  readonly place: LabPlace;
  readonly folder: string;
  readonly hubState: string;
  readonly applianceState: string;
  readonly profile: string;
}

export function stageOf(prefix: string): Stage {
  const folder = join(demoRoot, prefix);
  return {
    place: labPlace({ prefix }),
    folder,
    hubState: join(folder, "hub"),
    applianceState: join(folder, "appliance"),
    profile: join(folder, "profile.json"),
  };
}

/** Readable by the database's user, who must pass through; the programs' own folders are closed. */
export async function makeStage(stage: Stage): Promise<void> {
  await mkdir(stage.folder, { recursive: true, mode: 0o755 });
}

/** Ends every process that names a file of the stage (database, landed machines and their networks) and unmounts its views. */
export async function endStage(stage: Stage): Promise<void> {
  const mark = `${stage.folder}/`;
  const ids: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const commandLine = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => ""); // It ended while we looked.
    if (commandLine.includes(mark)) ids.push(Number(name));
  }
  await endProcesses(ids);
  const mounts = await readFile("/proc/self/mounts", "utf8");
  for (const row of mounts.split("\n")) {
    const path = row.split(" ")[1] ?? "";
    if (path.startsWith(mark)) await runCommand("umount", ["--lazy", path]);
  }
}

export async function removeStage(stage: Stage): Promise<void> {
  await rm(stage.folder, { recursive: true, force: true });
}

/** What any order of a demo may take, on a slow machine too; one that takes longer is stuck. */
const orderMsMax = 12 * 60_000;
/** An upgrade of a whole system on an emulated processor, or the making of its disk. */
const upgradeMsMax = 90 * 60_000;

/** Runs `watari …args --json` on the operator's desk to its end, whatever the end is. */
export async function runOnDesk(stage: Stage, args: readonly string[], timeoutMs = orderMsMax): Promise<CommandResult> {
  return await labExec(stage.place, "onprem", [launcher, ...args, "--json"], {
    env: { ...process.env, WATARI_PROFILE: stage.profile },
    timeoutMs: args.includes("--upgrade") ? upgradeMsMax : timeoutMs,
  });
}

/** Runs `watari …args --json` outside of the closed network, where packages can be fetched. */
export async function watari(args: readonly string[]): Promise<unknown> {
  return readAnswer(args, await tryCommand(launcher, [...args, "--json"], { timeoutMs: upgradeMsMax }));
}

/** Runs `watari …args` on the operator's desk and answers what it prints with --json. A fault of the command is thrown as it was told. */
export async function operate(stage: Stage, args: readonly string[]): Promise<unknown> {
  return readAnswer(args, await runOnDesk(stage, args));
}

function readAnswer(args: readonly string[], result: CommandResult): unknown {
  const answer = parseAnswer(result.stdout);
  if (result.exitCode === 0) return answer;
  const report = faultReportShape.safeParse((answer as { error?: unknown } | undefined)?.error);
  if (report.success) throw fromReport(report.data);
  const lastLines = result.stderr.trim().split("\n").slice(-8);
  const how = lastLines.at(-1) === "killed by SIGKILL" ? "was stuck, and was ended" : `ended with ${result.exitCode}`;
  throw new Fault("Internal", `"watari ${args.slice(0, 2).join(" ")}" ${how}`, { evidence: { lastLines } });
}

function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The exit code and stderr tell.
  }
}

/** The network's name in the hub, and of the bridge on which machines land. */
export const landingNetwork = "landing";

export async function startHub(stage: Stage, facts: LabFacts): Promise<void> {
  const { hub } = facts;
  const config = {
    domain: facts.domain,
    stateDir: stage.hubState,
    publicAddresses: [hub.publicAddress, "198.51.100.11"],
    networks: [
      {
        virtualNetwork: landingNetwork,
        subnet: "default",
        cidr: "10.200.0.0/24",
        interface: hub.bridge,
        endpointAddresses: { first: hub.endpointsFirst, last: "10.200.0.50" },
        dnsAddress: hub.dns,
      },
    ],
    landing: {
      networks: { [landingNetwork]: { kind: "bridge", bridge: hub.bridge, leasesFile: join(stage.place.stateFolder, "leases-landing") } },
    },
  };
  const configFile = join(stage.place.stateFolder, "hub.yaml");
  await writeFileAtomic(configFile, stringify(config));
  await startProgram(stage, { name: "hub", zone: "landing", argv: ["hub", "run", "--config", configFile] }, async () => {
    const answer = await labExec(stage.place, "landing", [
      "curl",
      ...["-sf", "--noproxy", "*", "--max-time", "2", "--cacert", join(stage.hubState, "pki", "ca.pem")],
      ...["--resolve", `management.${facts.domain}:443:${hub.publicAddress}`, `https://management.${facts.domain}/health`],
    ]);
    // The hub answers a moment before it has written how to sign in.
    return answer.exitCode === 0 && (await isPresent(join(stage.hubState, "operator.json")));
  });
}

async function isPresent(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** The stage's appliance, or another one under another name. */
export async function startAppliance(
  stage: Stage,
  isReady: () => Promise<boolean>,
  { name, stateFolder }: ApplianceChoice = { name: "appliance", stateFolder: stage.applianceState },
): Promise<void> {
  await startProgram(stage, { name, zone: "onprem", argv: ["appliance", "run", "--state", stateFolder] }, isReady);
}

export interface ApplianceChoice {
  /** Of its log and its process. */
  readonly name: string;
  readonly stateFolder: string;
}

/** Ends a program of the stage as its operator would; returns when it is gone. */
export async function stopProgram(stage: Stage, name: string): Promise<void> {
  const id = Number.parseInt(await readFile(join(stage.place.stateFolder, `${name}.pid`), "utf8"), 10);
  const commandLine = await readFile(`/proc/${id}/cmdline`, "utf8").catch(() => ""); // It has ended by itself.
  if (commandLine.includes(`${stage.folder}/`)) await endProcesses([id], stopWaitMsMax);
}

const stopWaitMsMax = 30_000;

const startWaitMsMax = 90_000;

async function startProgram(
  stage: Stage,
  program: { readonly name: string; readonly zone: Zone; readonly argv: readonly string[] },
  isReady: () => Promise<boolean>,
): Promise<void> {
  const pid = await startDaemon({ place: stage.place, zone: program.zone, name: program.name, argv: [launcher, ...program.argv] });
  await waitUntil(`the ${program.name}`, startWaitMsMax, async () => {
    if (!isAlive(pid))
      throw new Fault("Internal", `the ${program.name} ended at its start`, {
        evidence: { log: `${stage.place.stateFolder}/${program.name}.log` },
        action: "read the log named in the evidence",
      });
    return await isReady();
  });
}
