// The upgrade of a landed copy's operating system: which disk is for it, and waiting for what the guest says of it.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { Fault } from "../../contract/errors.ts";
import {
  findUpgradeReport,
  isUpgradeTarget,
  releases,
  upgradeDiskShape,
  upgradesOf,
  upgradeTargets,
  type UpgradeDisk,
  type UpgradeTarget,
} from "../../contract/os-upgrade.ts";
import { stored, type JobStep, type StepContext } from "../jobs/job.ts";
import type { Item } from "./item.ts";
import type { LaunchState } from "./launch-steps.ts";
import type { Replication } from "./world.ts";

const disksMax = 200;
const descriptionBytesMax = 4 << 20;
const serialCharactersMax = 4000;

/** What a machine lands with, kept with it. */
export interface ChosenUpgrade {
  readonly to: UpgradeTarget;
  /** The disk, by path. */
  readonly file: string;
  readonly sizeBytes: number;
}

/** What a job is told of a call's `osUpgradeVersion`. */
export function upgradeWish(
  { target }: Replication,
  item: Item,
  wanted: string | undefined,
): { readonly osUpgradeVersion?: UpgradeTarget } {
  const to = checkUpgrade(item, wanted);
  if (to === undefined) return {};
  if (!deafTargets.includes(target.kind)) return { osUpgradeVersion: to };
  throw new Fault(
    "OperationNotSupported",
    `could not upgrade ${item.machineName}: machines of the target ${target.kind} are not heard on their serial console`,
    {
      action: "call without osUpgradeVersion, and upgrade the system after the migration",
    },
  );
}

/** Targets whose machines do not get the disk, and could not say how it went. */
const deafTargets: readonly string[] = ["azure"];

/** Throws OperationNotSupported for a release that the machine's system cannot be upgraded to in one step. */
function checkUpgrade(item: Item, wanted: string | undefined): UpgradeTarget | undefined {
  if (wanted === undefined || wanted === "") return undefined;
  const osName = item.facts?.osName ?? "unknown";
  const offered = upgradesOf(osName);
  const to = wanted.toLowerCase();
  if (isUpgradeTarget(to) && offered.includes(to)) return to;
  const isKnown = isUpgradeTarget(to);
  throw new Fault(
    "OperationNotSupported",
    `could not upgrade ${item.machineName} to ${wanted}: ${isKnown ? `its system is ${osName}` : "there is no such upgrade"}`,
    {
      evidence: { osUpgradeVersion: wanted, system: osName, possible: [...offered], known: [...upgradeTargets] },
      action: offered.length === 0 ? "call without osUpgradeVersion" : `call with ${offered.join(" or ")}, or without osUpgradeVersion`,
    },
  );
}

/** The newest whole disk for the release in the hub's folder; its bytes are compared with its description. */
export async function chooseUpgradeDisk(folder: string, to: UpgradeTarget, signal: AbortSignal): Promise<ChosenUpgrade> {
  const found: { readonly file: string; readonly disk: UpgradeDisk; readonly changedMs: number }[] = [];
  const names = await readdir(folder).catch(() => []); // No folder, no disks.
  for (const name of names.filter((each) => each.endsWith(".json")).slice(0, disksMax)) {
    const file = join(folder, name.slice(0, -".json".length));
    const [facts, disk] = [await stat(file).catch(() => undefined), await readDescription(join(folder, name))];
    if (facts !== undefined && disk?.to === to) found.push({ file, disk, changedMs: facts.mtimeMs });
  }
  for (const { file, disk } of found.toSorted((one, other) => other.changedMs - one.changedMs)) {
    const hash = createHash("sha256");
    await pipeline(createReadStream(file), hash, { signal });
    if (hash.digest("hex") === disk.sha256) return { to, file, sizeBytes: disk.sizeBytes };
    throw new Fault("DataDamaged", "could not use the upgrade disk: its bytes are not those that were described when it was made", {
      evidence: { file },
      action: "copy it again, or build it anew with `watari upgrade-disk build`",
    });
  }
  throw new Fault("NotFound", `could not find a disk that upgrades to ${releases[to].title} in the hub's folder for them`, {
    evidence: { folder },
    action: "build one with `watari upgrade-disk build` where Debian's archive can be reached, and put both of its files there",
  });
}

async function readDescription(path: string): Promise<UpgradeDisk | undefined> {
  if ((await stat(path)).size > descriptionBytesMax) return undefined;
  try {
    return upgradeDiskShape.safeParse(JSON.parse(await readFile(path, "utf8"))).data;
  } catch {
    return undefined; // Something else lies there, and it describes no disk.
  }
}

export interface UpgradeState {
  readonly osUpgrade?: { readonly to: UpgradeTarget; readonly text: string; readonly seconds: number };
}

/** The step of a test or a migration; nothing to do where no upgrade was asked for. */
export function upgradeStep<
  Parameters extends { readonly osUpgradeVersion?: UpgradeTarget | undefined },
  State extends LaunchState & UpgradeState,
>(world: Replication): JobStep<Parameters, State> {
  return {
    name: "upgrade",
    title: "upgrade the operating system",
    weight: 1,
    run: async (context) => {
      const { osUpgradeVersion: to } = context.parameters;
      const kept: UpgradeState = to === undefined ? {} : await waitForUpgrade(world, context, to);
      return kept as Partial<State>; // UpgradeState is a part of State.
    },
    undo: "the copy goes with the machine, which the launch's undo removes; the source is as it was",
  };
}

/** Waits until the guest says on its serial console how its upgrade ended. Begun again after a restart of the hub it goes on listening. */
async function waitForUpgrade<State extends LaunchState & UpgradeState>(
  world: Replication,
  context: StepContext<object, State>,
  to: UpgradeTarget,
): Promise<UpgradeState> {
  const { services, target, limits } = world;
  const name = stored<LaunchState, "landedName">(context.state, "landedName");
  const startedMs = services.clock.monotonicMs();
  let last = "";
  for (;;) {
    const { serialTail, power } = await target.status(name);
    const report = findUpgradeReport(serialTail);
    const seconds = Math.round((services.clock.monotonicMs() - startedMs) / 1000);
    const evidence = { name, to, seconds, serialTail: serialTail.slice(-serialCharactersMax) };
    if (report?.state === "done" && report.text.startsWith(`${releases[to].codename} `))
      return { osUpgrade: { to, text: report.text, seconds } };
    if (report !== undefined && report.state !== "running")
      throw new Fault("UpgradeFailed", `the upgrade of ${name} to ${releases[to].title} failed: ${report.text}`, { evidence });
    if (power !== "running")
      throw new Fault("UpgradeFailed", `the machine ${name} went off in the midst of its upgrade`, { evidence: { ...evidence, power } });
    if (seconds > limits.upgradeSeconds)
      throw new Fault("UpgradeFailed", `the upgrade of ${name} did not end within ${limits.upgradeSeconds} s`, {
        evidence: { ...evidence, last },
      });
    const now = report === undefined ? "" : `${report.percent} ${report.text}`;
    if (report !== undefined && now !== last) await context.progress(report.percent, report.text);
    last = now;
    await services.clock.sleep(limits.pollMs, context.signal);
  }
}
