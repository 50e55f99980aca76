// How a move ends: what is said at the end, and how everything is stopped or removed again.

import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { runCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { comparisonShape, comparisonText } from "../downtime.ts";
import { formatBytes } from "../output.ts";
import { findLanded, landedPath } from "./hub-view.ts";
import { giveUp, ItemJobs } from "./item-jobs.ts";
import type { JourneyEnd } from "./journey.ts";
import type { Tell } from "./live.ts";
import { openHub, startAppliance, startHub } from "./open-site.ts";
import { endProcesses, findProcesses, stopProgram } from "./programs.ts";
import type { MoveRecord, Site } from "./site.ts";
import { sourceText } from "./source.ts";

const sshPort = 22;

/** For people, at the end of a call. */
export function endText(end: JourneyEnd, site: Site, stateOption: string): string {
  const { record, reached } = end;
  const again = `watari move ${sourceText(record.source)}${stateOption}`;
  const options = stateOption === "" ? sourceText(record.source) : `${sourceText(record.source)}${stateOption}`;
  const manage = (verb: string): string => `watari landed ${verb} ${end.landed?.name ?? ""} --profile ${site.profile}`;
  const files = (record.exported?.files ?? []).map(({ path, sizeBytes }) => row("file", `${path}, ${formatBytes(sizeBytes)}`));
  switch (reached) {
    case "tested":
      return [
        row("result", "the test machine ran and is removed; the source goes on and is replicated"),
        ...files,
        row("cut over", again),
        row("give up", `watari move --remove ${options}`),
      ].join("\n");
    case "declined":
      return [
        row("result", "not cut over; the source goes on and is replicated"),
        row("cut over", again),
        row("give up", `watari move --remove ${options}`),
      ].join("\n");
    case "landed":
      return [
        row("result", `moved: ${end.landed?.name ?? ""} runs here, the source is off`),
        ...reachRows(end),
        ...downtimeRows(end),
        row("disks", join(site.hubState, "landing", "machines", end.landed?.name ?? "")),
        row("stop", manage("stop")),
        row("start", manage("start")),
        row("after a reboot", again),
        row("stop all", `watari move --stop ${options}`),
        row("remove all", `watari move --remove ${options}   (the landed machine and its disks go too)`),
      ].join("\n");
    case "exported":
      return [
        row("result", "moved: the disks are files, the source is off"),
        ...downtimeRows(end),
        ...files,
        row("remove the rest", `watari move --remove ${options}`),
      ].join("\n");
  }
}

/** Of the cut-over, when it was made by this call. */
function downtimeRows({ evidence }: JourneyEnd): readonly string[] {
  const found = z.looseObject({ downtime: comparisonShape }).safeParse(evidence["UnplannedFailover"]);
  return found.success ? [row("downtime", comparisonText(found.data.downtime))] : [];
}

function reachRows({ record, landed }: JourneyEnd): readonly string[] {
  if (record.network.kind === "bridge") {
    const addresses = landed?.addresses ?? [];
    return [row("reach it", addresses.length === 0 ? `on the bridge ${record.network.bridge}` : addresses.join(", "))];
  }
  return record.forwards.map(({ hostPort, guestPort }) =>
    row(
      "reach it",
      guestPort === record.source.port || guestPort === sshPort
        ? `ssh -p ${hostPort} ${record.source.user}@127.0.0.1`
        : `127.0.0.1:${hostPort}, its port ${guestPort}`,
    ),
  );
}

function row(name: string, value: string): string {
  return `${name.padEnd(18)}${value}`;
}

/** Ends the landed machine, appliance and hub; everything is kept and the next call starts it again. */
export async function stopSite(site: Site, record: MoveRecord): Promise<void> {
  if (record.hubNames !== undefined) {
    await startHub(site, record);
    await using session = await openHub(site);
    const landed = await findLanded(session.arm);
    if (landed?.isRunning === true) await session.arm.change("POST", `${landedPath(session.arm, landed.name)}/powerOff`, {});
  }
  await stopProgram(site, "appliance");
  await stopProgram(site, "hub");
}

/** What a removal takes away, in words. */
export function describeRemoval(site: Site, record: MoveRecord): string {
  const name = `${sourceText(record.source)}: ${site.folder}`;
  if (record.completedAt === undefined) return `${name} with its replica; the agent is taken off the source, which goes on`;
  if (record.exported?.isFinal === true) return `${name}; the exported files stay`;
  return `${name} with the landed machine and its disks, which no one else has`;
}

/** Takes the agent off the source, removes the landed machine, ends every process and deletes the folder. Twice is fine. */
export async function removeSite(site: Site, record: MoveRecord, tell: Tell): Promise<void> {
  if (record.hubNames !== undefined) {
    await startHub(site, record);
    await using session = await openHub(site);
    const { arm } = session;
    const jobs = record.machine === undefined ? undefined : new ItemJobs(arm, record.machine.infrastructureId);
    if (jobs !== undefined && (await jobs.find()) !== undefined) {
      await startAppliance(site, record);
      await giveUp(jobs, tell);
    }
    const landed = await findLanded(arm);
    if (landed !== undefined) await arm.change("DELETE", landedPath(arm, landed.name));
  }
  await stopProgram(site, "appliance");
  await stopProgram(site, "hub");
  await endProcesses(await findProcesses(site));
  await unmountUnder(site.folder);
  await rm(site.folder, { recursive: true, force: true });
  const left = await findProcesses(site);
  if (left.length > 0) throw new Fault("LeftoverFound", "processes of the move are left", { evidence: { processes: left.map(String) } });
}

async function unmountUnder(folder: string): Promise<void> {
  const mounts = await readFile("/proc/self/mounts", "utf8");
  for (const line of mounts.split("\n")) {
    const path = line.split(" ")[1] ?? "";
    if (path.startsWith(`${folder}/`)) await runCommand("umount", ["--lazy", path]);
  }
}
