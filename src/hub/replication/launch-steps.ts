// The steps that the test and the real migration share: choose a point, launch from it, probe.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { withRetry } from "../../base/retry.ts";
import type { MachineFacts } from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import type { PointId } from "../../contract/ids.ts";
import { upgradeDiskId } from "../../contract/os-upgrade.ts";
import type { HydrationReport, LandingNetwork } from "../../landing/target.ts";
import type { RecoveryPoint } from "../../vault/vault.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { stored, type StepContext } from "../jobs/job.ts";
import { bindToPlace } from "../jobs/job-store.ts";
import type { Item } from "./item.ts";
import type { ItemSettings } from "./item-settings.ts";
import { authorityOf, removeLandedRow, saveLanded, type Landed } from "./landed.ts";
import { addressingOf, findUnlockKeys, type JobLaunch } from "./launch-settings.ts";
import { landedId, vaultOf } from "./names.ts";
import type { ChosenUpgrade } from "./os-upgrade.ts";
import { nicNamesOf } from "./part-names.ts";
import type { Replication } from "./world.ts";

export const probeShape = z.strictObject({
  port: z.number().int().min(1).max(65_535),
  path: z.string().startsWith("/").max(500).default("/"),
  timeoutSeconds: z.number().min(1).max(7200).optional(),
});
export type Probe = z.infer<typeof probeShape>;

/** Evidence that these steps leave; jobs merge it into their state. */
export interface LaunchState {
  readonly pointId?: string;
  /** What it lands with, chosen before anything is done. */
  readonly upgrade?: ChosenUpgrade;
  readonly landedName?: string;
  readonly vmId?: string;
  readonly launchedAt?: string;
  readonly hydrationSeconds?: number;
  readonly hydrationChanges?: readonly string[];
  readonly probedAt?: string;
  readonly probeSeconds?: number;
  readonly probeStatus?: number;
  readonly probeBody?: string;
  readonly serialTail?: string;
  readonly addresses?: readonly string[];
}

const serialTailCharactersMax = 4000;
const probeBodyCharactersMax = 4000;
const changesMax = 500;

/** The point from the vault itself: its seal, not the catalogue, says what can be opened. */
export async function openPoint(world: Replication, vaultId: string, pointId: PointId): Promise<RecoveryPoint> {
  const reader = await world.openReader(vaultId);
  const point = await reader.point(pointId);
  if (point !== undefined) return point;
  throw new Fault("NotFound", `could not open the recovery point ${pointId}: the vault does not have it`, { evidence: { pointId } });
}

export interface LaunchWish {
  readonly itemId: string;
  readonly item: Item;
  readonly purpose: Landed["purpose"];
  readonly name: string;
  readonly pointId: PointId;
  readonly network: LandingNetwork;
  /** Lands with it. */
  readonly upgrade?: ChosenUpgrade | undefined;
  /** What the call said, in place of the item's settings. */
  readonly launch?: JobLaunch;
}

export async function launchFromPoint<State extends LaunchState>(
  world: Replication,
  context: StepContext<object, State>,
  wish: LaunchWish,
): Promise<HydrationReport> {
  const { services, landings } = world;
  const vault = vaultOf(parseResourceId(wish.itemId));
  const point = await openPoint(world, vault.text, wish.pointId);
  const { facts, settings } = wish.item;
  if (facts === undefined) throw new Error("assertion failed: a protected machine has facts");
  const vmId = context.state.vmId ?? services.random.uuid();
  const hasSerialConsole = wish.launch?.hasSerialConsole ?? settings.hasSerialConsole;
  const ownCount = settings.unlockKeyCount;
  const unlockKeys = await findUnlockKeys(services.secrets, { itemId: wish.itemId, jobId: context.jobId, ownCount });
  const landed: Landed = {
    purpose: wish.purpose,
    itemId: wish.itemId,
    vaultId: vault.text,
    vmId,
    pointId: wish.pointId,
    ...(world.place === undefined ? {} : { place: world.place }),
    ...(wish.upgrade === undefined ? {} : { upgradeFile: wish.upgrade.file }),
    tags: { machine: settings.vmTags, disks: settings.diskTags, nics: settings.nicTags },
    launch: {
      name: wish.name,
      cpuCount: facts.cpuCount,
      memoryBytes: facts.memoryBytes,
      firmware: facts.firmware,
      disks: [
        ...point.disks.map(({ diskId, isBoot, sizeBytes }) => ({ diskId, isBoot, sizeBytes, ...diskNameOf(wish, diskId) })),
        ...(wish.upgrade === undefined ? [] : [{ diskId: upgradeDiskId, isBoot: false, sizeBytes: wish.upgrade.sizeBytes }]),
      ],
      nics: chosenNics(facts, wish),
      network: wish.network,
      ...(hasSerialConsole === undefined ? {} : { hasSerialConsole }),
      ...(unlockKeys.length === 0 ? {} : { unlockKeyCount: unlockKeys.length }),
    },
  };
  const kept: LaunchState = { vmId, landedName: wish.name };
  await context.save(kept as Partial<State>); // LaunchState is a part of State.
  const id = landedId(vault, wish.name);
  await context.write(async (db) => {
    await saveLanded(db, id, landed, "Creating");
    if (world.place !== undefined) await bindToPlace(db, context.jobId, world.place);
  });
  await context.confirm();
  const hydration = await landings.launch(authorityOf(context), landed, { unlockKeys, signal: context.signal });
  await context.write(async (db) => await saveLanded(db, id, landed, "Succeeded"));
  return hydration;
}

/** A copy for a test lands beside the machine itself, so it does not take the names of its disks. */
function diskNameOf({ item, purpose }: LaunchWish, diskId: string): { readonly name?: string } {
  const name = purpose === "migrated" ? item.settings.diskNames[diskId] : undefined;
  return name === undefined ? {} : { name };
}

/** The cards that were not left out, the one that was made the first at the front, with the names that were chosen. */
function chosenNics(facts: MachineFacts, { item: { settings }, purpose, launch }: LaunchWish): Landed["launch"]["nics"] {
  const ofTests = purpose === "test" ? settings.tfoNicAddressing : [];
  const wishOf = (guestName: string): ItemSettings["nics"][number] | undefined => settings.nics.find(({ nicId }) => nicId === guestName);
  const kept = nicsOf(facts).filter(({ guestName }) => wishOf(guestName)?.selectionType !== "NotSelected");
  const first = kept.filter(({ guestName }) => guestName === settings.sourceNicId);
  return [...first, ...kept.filter((nic) => !first.includes(nic))].map((nic) => {
    const wish = wishOf(nic.guestName);
    const name = wish === undefined ? undefined : nicNamesOf(wish)[purpose === "migrated" ? "landed" : "test"];
    const addressing = addressingOf(nic.guestName, settings.nicAddressing, ofTests, launch?.nicAddressing);
    return {
      ...nic,
      ...(name === undefined ? {} : { name }),
      ...(addressing === undefined ? {} : { addressing }),
      // Isolated networks are made around it, and probes ask it.
      ...(addressing?.kind === "fixed" ? { address: addressing.address } : {}),
    };
  });
}

/** Facts do not say which address is which card's: only with one card is it known. */
export function nicsOf(facts: MachineFacts): Landed["launch"]["nics"] {
  const address = facts.nics.length === 1 ? facts.addresses.find((each) => /^\d+\.\d+\.\d+\.\d+(\/\d+)?$/.test(each)) : undefined;
  return facts.nics.map(({ mac, name }) => ({ mac, guestName: name, ...(address === undefined ? {} : { address }) }));
}

export function hydrationEvidence(world: Replication, hydration: HydrationReport): LaunchState {
  return {
    launchedAt: toTimestamp(world.services.clock.nowMs()),
    hydrationSeconds: hydration.seconds,
    hydrationChanges: hydration.changes.slice(0, changesMax),
  };
}

/** Takes back a launch that was begun; nothing is left of it, in the target or in the database. */
export async function removeLaunched<State extends LaunchState>(
  world: Replication,
  context: StepContext<object, State>,
  itemId: string,
): Promise<void> {
  const name = context.state.landedName;
  if (name === undefined) return;
  await context.confirm();
  await world.landings.remove(authorityOf(context), name);
  await context.write(async (db) => await removeLandedRow(db, landedId(vaultOf(parseResourceId(itemId)), name)));
}

/** Asks the landed machine until it answers 200. Without a probe a running processor counts. */
export async function probeLanded<State extends LaunchState>(
  world: Replication,
  context: StepContext<object, State>,
  probe: Probe | undefined,
): Promise<LaunchState> {
  const { target, services, limits } = world;
  const name = stored<LaunchState, "landedName">(context.state, "landedName");
  if (probe === undefined) {
    const status = await target.status(name);
    if (status.power !== "running")
      throw new Fault("ProbeFailed", `the landed machine ${name} does not run`, { evidence: { name, power: status.power } });
    return { probedAt: toTimestamp(services.clock.nowMs()), ...describeStatus(status) };
  }
  const seconds = probe.timeoutSeconds ?? limits.probeSeconds;
  const outcome = await target.probe(name, { port: probe.port, path: probe.path }, seconds, context.signal);
  const probedAt = toTimestamp(services.clock.nowMs());
  const status = await target.status(name);
  if (outcome.kind === "silent")
    throw new Fault("ProbeFailed", `the landed machine ${name} did not answer on port ${probe.port} within ${seconds} s`, {
      evidence: {
        name,
        port: probe.port,
        path: probe.path,
        reason: outcome.reason,
        power: status.power,
        addresses: status.addresses,
        serialTail: status.serialTail.slice(-serialTailCharactersMax),
      },
    });
  return {
    probedAt,
    probeSeconds: outcome.seconds,
    ...(outcome.status === undefined ? {} : { probeStatus: outcome.status }),
    probeBody: outcome.body.slice(0, probeBodyCharactersMax),
    ...describeStatus(status),
  };
}

const fillAttemptsMax = 10;

/** Copies what still depends on the recovery point, until the machine stands by itself. */
export async function fillLanded(
  world: Replication,
  context: StepContext<object, object>,
  name: string,
): Promise<{ readonly filledAt: string }> {
  const { services, target, landings } = world;
  const totalBytes = Math.max(1, (await target.status(name)).bytesToFill);
  let told: Promise<void> = Promise.resolve();
  const tell = (bytesLeft: number): void => {
    // One report at a time; a failed one shows in the await below.
    told = told.then(async () => await context.progress(100 - (100 * bytesLeft) / totalBytes, `${bytesLeft} bytes to copy`));
  };
  await withRetry(
    {
      clock: services.clock,
      attemptsMax: fillAttemptsMax,
      firstWaitMs: 500,
      waitMaxMs: 30_000,
      isTransient: (error) => error instanceof Fault && error.retry !== "never",
      signal: context.signal,
    },
    async () => {
      try {
        await landings.fill(authorityOf(context), name, tell, context.signal);
      } catch (error) {
        context.signal.throwIfAborted();
        // Nobody starts a machine that has ended, so waiting would only make the way back later.
        await requireStanding({ target, name, bytesToFillMax: Number.POSITIVE_INFINITY });
        throw error;
      }
    },
  );
  await told;
  await requireStanding({ target, name, bytesToFillMax: 0 });
  return { filledAt: toTimestamp(services.clock.nowMs()) };
}

async function requireStanding(wish: {
  readonly target: Replication["target"];
  readonly name: string;
  readonly bytesToFillMax: number;
}): Promise<void> {
  const { target, name, bytesToFillMax } = wish;
  const { bytesToFill, power } = await target.status(name);
  if (power === "running" && bytesToFill <= bytesToFillMax) return;
  throw new Fault("ProbeFailed", `the machine ${name} does not stand by itself`, { evidence: { bytesToFill, power }, retry: "never" });
}

function describeStatus(status: { readonly addresses: readonly string[]; readonly serialTail: string }): LaunchState {
  return { addresses: status.addresses, serialTail: status.serialTail.slice(-serialTailCharactersMax) };
}
