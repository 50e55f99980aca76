// `watari move`: one Linux machine that SSH reaches is replicated, tested and cut over to this machine, or to disk files.

import { confirm, isCancel } from "@clack/prompts";
import { resolve } from "node:path";
import type { Command } from "commander";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { Fault } from "../contract/errors.ts";
import { describeRemoval, endText, removeSite, stopSite } from "./move/ending.ts";
import { travel, type Journey, type JourneyEnd } from "./move/journey.ts";
import { LiveSteps } from "./move/live.ts";
import { addSource, makeResources, openHub, startAppliance, startHub } from "./move/open-site.ts";
import { applyWish, chooseRecord } from "./move/prepare.ts";
import { stopProgram } from "./move/programs.ts";
import { confirmBeginning, confirmCutOver, findExportFolder, findLogin, isAtTerminal } from "./move/questions.ts";
import { defaultStateFolder, makeSiteFolder, pickSite, readRecord, siteOf, writeRecord } from "./move/site.ts";
import { parseSource } from "./move/source.ts";
import { parseWish, type MoveFlags, type MoveWish } from "./move/wish.ts";
import { packagesFor } from "./setup/package-lists.ts";
import { ensurePackages } from "./setup/packages.ts";

interface Flags extends MoveFlags {
  readonly stop?: boolean;
  readonly remove?: boolean;
}

const about = `Hub and appliance run on this machine, on loopback addresses of their own and on the address that faces the source. The source runs on
until the cut-over. Then it is powered off over SSH, and it must stay off: a machine that something starts again by itself (a cluster
manager, an auto-start rule) must be taken from that hand first. The same command called again goes on where it was.
More: docs/guide/move.md`;

export function registerMoveCommand(program: Command): void {
  program
    .command("move")
    .argument("[machine]", "root@HOST or root@HOST:PORT")
    .description("move one Linux machine that SSH reaches to this machine: replicate, test, cut over")
    .addHelpText("after", `\n${about}`)
    .option("--key <file>", "private key that the machine accepts")
    .option("--password-file <file>", "file with the password")
    .option("--sudo", "become root with sudo (the default for a user other than root)")
    .option("--to <what>", "start: it runs here; raw, qcow2, vhd or vmdk: its disks become files", "start")
    .option("--out <dir>", "folder for the files")
    .option("--no-hydrate", "leave drivers and settings in the files as they are on the source")
    .option("--network <how>", "user: own address translation, reached by forwards; bridge=NAME: a bridge of this machine", "user")
    .option(
      "--forward <host:guest>",
      "a port of this machine's 127.0.0.1 that leads to one of the landed machine; may be repeated (default: one to its SSH)",
      collect,
    )
    .option("--probe-port <port>", "it counts as up when http://MACHINE:PORT answers 200; without it, when its processor runs")
    .option("--probe-path <path>", "path to ask", "/")
    .option("--appliance-address <ip>", "address by which the source reaches this machine (default: the one that faces it)")
    .option("--until <step>", "test: stop before the cut-over and go on replicating")
    .option("--yes", "ask for no consent any more; cut over")
    .option("--json <file>", "write a report")
    .option("--state <dir>", "where hub, appliance and the landed machine keep everything", defaultStateFolder)
    .option("--stop", "end the landed machine, hub and appliance of a move; all is kept")
    .option("--remove", "remove everything of a move from this machine, and the agent from a source that was not cut over")
    .action(async (machine: string | undefined, flags: Flags) => {
      if (flags.stop === true || flags.remove === true) return await end(machine, flags);
      if (machine === undefined)
        throw new Fault("InputInvalid", "could not move: no machine was named", { action: "watari move root@HOST" });
      return await move(machine, flags);
    });
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function openLive(): LiveSteps {
  return new LiveSteps({ isTerminal: process.stderr.isTTY, write: (text) => void process.stderr.write(text) });
}

async function move(machine: string, flags: Flags): Promise<void> {
  const wish = await findExportFolder(parseWish(machine, flags));
  const stateFolder = resolve(flags.state);
  const site = siteOf(stateFolder, wish.source);
  const before = await readRecord(site);
  const isLoginKept = before?.machine !== undefined && before.source.user === wish.source.user;
  const login = before?.completedAt === undefined ? await findLogin(wish, flags, isLoginKept) : undefined;
  if (before?.completedAt === undefined) await confirmBeginning(wish);
  const live = openLive();
  await ensurePackages(packagesFor("move"), { purpose: "watari move", confirm: wish.isConfirmed ? "announce" : "ask" });
  await makeSiteFolder(site);
  let record = await live.run("choose addresses and ports that nothing else uses", async () => {
    const chosen = before === undefined ? await chooseRecord(site, wish, stateFolder) : await changed(before, wish);
    await writeRecord(site, chosen);
    return chosen;
  });
  live.note("hub and appliance go on without this command; called again it goes on where they are");
  await live.run("start the hub", async () => await startHub(site, record));
  record = await live.run("sign in; project, storage account and vault", async () => await makeResources(site, record));
  if (record.completedAt === undefined) {
    await live.run("start the appliance and register it", async () => await startAppliance(site, record));
    record = await live.run(
      `look at ${wish.source.host} over SSH`,
      async () => await addSource(site, record, { login, privilege: wish.privilege }),
    );
  }
  await using session = await openHub(site);
  const ask: Journey["confirmCutOver"] = async (name, prediction) => await confirmCutOver(wish, name, prediction);
  const reached = await travel({ site, arm: session.arm, live, wish, confirmCutOver: ask }, record);
  if (reached.record.completedAt !== undefined) await stopProgram(site, "appliance");
  if (flags.json !== undefined) await writeReport(flags.json, reached, live);
  const stateOption = flags.state === defaultStateFolder ? "" : ` --state ${stateFolder}`;
  process.stderr.write(`\n${endText(reached, site, stateOption)}\n`);
}

/** What has landed stays as it landed. */
async function changed(before: NonNullable<Awaited<ReturnType<typeof readRecord>>>, wish: MoveWish): Promise<typeof before> {
  return before.completedAt === undefined ? await applyWish(before, wish) : before;
}

async function writeReport(file: string, end: JourneyEnd, live: LiveSteps): Promise<void> {
  const { reached, landed, record, evidence } = end;
  const report = {
    reached,
    seconds: live.seconds,
    steps: live.done,
    machine: record.machine?.name ?? "",
    ...(landed === undefined ? {} : { landed }),
    forwards: record.forwards,
    files: record.exported?.files ?? [],
    evidence,
  };
  await writeFileAtomic(file, `${JSON.stringify(report, undefined, 2)}\n`);
}

async function end(machine: string | undefined, flags: Flags): Promise<void> {
  const { site, record } = await pickSite(resolve(flags.state), machine === undefined ? undefined : parseSource(machine));
  const live = openLive();
  if (flags.remove !== true) return await live.run(`stop ${site.folder}`, async () => await stopSite(site, record));
  const what = describeRemoval(site, record);
  if (flags.yes !== true) {
    if (!isAtTerminal())
      throw new Fault("InputInvalid", `did not remove ${what}`, { evidence: { flag: "--yes" }, action: "call again with --yes" });
    const answer = await confirm({ output: process.stderr, message: `Remove ${what}?`, initialValue: false });
    if (isCancel(answer) || !answer) return;
  }
  return await live.run(`remove ${what}`, async (tell) => await removeSite(site, record, tell));
}
