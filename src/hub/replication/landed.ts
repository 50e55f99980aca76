// Landed machines: their rows beside the vault, their disks held open while they depend on a recovery point, launch and removal.

import { sql } from "kysely";
import { z } from "zod";
import { assert } from "../../base/assert.ts";
import { Fault } from "../../contract/errors.ts";
import type { DiskId } from "../../contract/ids.ts";
import { upgradeDiskId } from "../../contract/os-upgrade.ts";
import { diskIdShape, pointIdShape } from "../../contract/shapes.ts";
import type { Disk } from "../../disk/disk.ts";
import { openFileDisk } from "../../disk/file-disk.ts";
import type { Authority } from "../../landing/fence-ledger.ts";
import type { HydrationReport, LandingDisk, LandingNetwork, LaunchSpec, Target } from "../../landing/target.ts";
import type { VaultReader } from "../../vault/vault.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { Queryable } from "../jobs/job.ts";
import { addressingShape } from "./launch-settings.ts";
import { machineType } from "./names.ts";

const tagsShape = z.record(z.string(), z.string()).optional();

const launchShape = z.object({
  name: z.string(),
  cpuCount: z.number(),
  memoryBytes: z.number(),
  firmware: z.enum(["bios", "efi"]),
  /** `name` of a disk or a card: as a client chose it; made from the machine's unless told. */
  disks: z.array(z.object({ diskId: diskIdShape, isBoot: z.boolean(), sizeBytes: z.number(), name: z.string().optional() })),
  nics: z.array(
    z.object({
      mac: z.string(),
      guestName: z.string(),
      address: z.string().optional(),
      name: z.string().optional(),
      addressing: addressingShape.optional(),
    }),
  ),
  network: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("isolated") }),
    z.object({ kind: z.literal("named"), name: z.string() }),
  ]),
  hasSerialConsole: z.boolean().optional(),
  /** So many were tried at its encrypted disks; the keys themselves are not kept. */
  unlockKeyCount: z.number().optional(),
});

/** Whether it starts when its host was started again; those of a lower order come first. */
export const autostartShape = z.strictObject({
  isOn: z.boolean(),
  order: z.number().int().min(1).max(1000).default(100),
  /** Once those of lower orders run. */
  delaySeconds: z.number().int().min(0).max(600).default(0),
});

/** All that is needed to launch the machine again, apart from the bytes of its disks. */
export const landedShape = z.object({
  purpose: z.enum(["test", "migrated"]),
  itemId: z.string(),
  vaultId: z.string(),
  /** Whose target has it; see ReplicationWorld. */
  place: z.string().optional(),
  /** vmId of the ARM shape; given once. */
  vmId: z.string(),
  pointId: pointIdShape,
  /** Of the machine when it is first shown, of its disks, of its cards. */
  tags: z.object({ machine: tagsShape, disks: tagsShape, nics: tagsShape }).optional(),
  /** The disk that upgrades its operating system, by path; the last of its disks is a copy of it. */
  upgradeFile: z.string().optional(),
  /** Switched off for good until it is started: ARM tells this from a machine that is merely off. */
  isDeallocated: z.boolean().optional(),
  /** By an order, not by its host or guest. */
  isSwitchedOff: z.boolean().optional(),
  autostart: autostartShape.optional(),
  launch: launchShape,
});
export type Landed = z.infer<typeof landedShape>;

/** A machine that a client made of disks it uploaded; see compute/made-machine.ts. */
export const madeShape = z.object({
  purpose: z.literal("made"),
  place: z.string().optional(),
  vmId: z.string(),
  isDeallocated: z.boolean().optional(),
  isSwitchedOff: z.boolean().optional(),
  autostart: autostartShape.optional(),
  vmSize: z.string(),
  licenseType: z.string().optional(),
  /** Keys of the managed disks, in the order of `launch`; and of the interfaces. */
  diskIds: z.array(z.string()),
  interfaceIds: z.array(z.string()),
  launch: launchShape,
});
export type Made = z.infer<typeof madeShape>;

/** What a row of a machine holds. */
export const landedMachineShape = z.discriminatedUnion("purpose", [landedShape, madeShape]);
export type LandedMachine = z.infer<typeof landedMachineShape>;

/** Written before the target is asked, so that whatever a crash leaves has a row that names it. */
export async function saveLanded(
  db: Queryable,
  id: ResourceId,
  landed: Landed,
  provisioningState: "Creating" | "Succeeded",
): Promise<void> {
  await sql`insert into resources (key, id, type, name, parent_key, location, envelope, properties, provisioning_state, etag, created_at, updated_at)
    values (${id.key}, ${id.text}, ${machineType.toLowerCase()}, ${id.name}, ${id.parentKey},
      (select location from resources where key = ${landed.vaultId.toLowerCase()}), ${JSON.stringify({ tags: landed.tags?.machine })}::jsonb, ${JSON.stringify(landed)}::jsonb,
      ${provisioningState}, '"' || gen_random_uuid() || '"', clock_timestamp(), clock_timestamp())
    on conflict (key) do update set properties = excluded.properties, provisioning_state = excluded.provisioning_state,
      etag = excluded.etag, updated_at = excluded.updated_at`.execute(db);
}

/** Machines that may still read from their recovery point: tests, and migrations that have not come to their end. */
export async function landedUnfilled(db: Queryable): Promise<readonly object[]> {
  const found = await sql<{ properties: object }>`select m.properties from resources m
    where m.type = ${machineType.toLowerCase()} and not (m.properties->>'purpose' in ('migrated', 'made') and m.provisioning_state = 'Succeeded'
      and not exists (select 1 from jobs j where j.ended_at is null and lower(j.target_id) = lower(m.properties->>'itemId'))
      and not exists (select 1 from resources i where i.key = lower(m.properties->>'itemId')
        and i.properties->>'protectionState' in ('UnplannedFailoverFailed', 'UnplannedFailoverInitiated', 'CancelFailoverFailedOnRecovery',
          'ChangeRecoveryPointInitiated', 'ChangeRecoveryPointFailed')))
    order by m.key`.execute(db);
  return found.rows.map((row) => row.properties);
}

export async function findLanded(db: Queryable, machineId: string): Promise<LandedMachine | undefined> {
  const row = await db.selectFrom("resources").select("properties").where("key", "=", machineId.toLowerCase()).executeTakeFirst();
  return row === undefined ? undefined : landedMachineShape.parse(row.properties);
}

/** Nothing when the machine is gone. */
export async function patchLanded(
  db: Queryable,
  machineId: string,
  change: Pick<Landed, "isDeallocated" | "isSwitchedOff">,
): Promise<void> {
  await sql`update resources set properties = properties || ${JSON.stringify(change)}::jsonb, etag = '"' || gen_random_uuid() || '"',
    updated_at = clock_timestamp() where key = ${machineId.toLowerCase()} and type = ${machineType.toLowerCase()}`.execute(db);
}

export async function removeLandedRow(db: Queryable, id: ResourceId): Promise<void> {
  await sql`delete from resources where key = ${id.key} and type = ${machineType.toLowerCase()}`.execute(db);
}

/** Throws StateConflict for a machine that another hub's target has: here it would seem to be gone. */
export function requireHere({ place: there, launch }: Pick<LandedMachine, "place" | "launch">, here: string | undefined): void {
  if (there === undefined || here === undefined || there === here) return;
  throw new Fault("StateConflict", `could not command the machine ${launch.name}: it landed at another host`, {
    evidence: { name: launch.name, place: there, placeHere: here },
    action: "call the hub of that host",
    retry: "never",
  });
}

/** What a step's commands to a target carry. */
export function authorityOf({ fence }: { readonly fence: number }): Authority {
  return { kind: "job", fence };
}

/** Opens the disks of landed machines and keeps them until the machine stands by itself or is gone. */
export class Landings implements AsyncDisposable {
  readonly #target: Target;
  readonly #openReader: (vaultResourceId: string) => Promise<VaultReader>;
  readonly #openManaged: (diskId: ResourceId) => Promise<Disk>;
  readonly #held = new Map<string, Held>();

  constructor(options: {
    readonly target: Target;
    readonly openReader: (vaultResourceId: string) => Promise<VaultReader>;
    /** The content of a disk that was uploaded. */
    readonly openManaged: (diskId: ResourceId) => Promise<Disk>;
  }) {
    this.#target = options.target;
    this.#openReader = options.openReader;
    this.#openManaged = options.openManaged;
  }

  /** Launches, or gives a machine that runs already the disks that it still depends on. May be called again. */
  async launch(
    authority: Authority,
    landed: LandedMachine,
    { unlockKeys = [], signal }: { readonly unlockKeys?: readonly Uint8Array[]; readonly signal: AbortSignal },
  ): Promise<HydrationReport> {
    const { name, cpuCount, memoryBytes, firmware, network, hasSerialConsole = false } = landed.launch;
    const disks = this.#held.get(name)?.disks ?? (await this.#openDisks(landed));
    const nics = landed.launch.nics.map(({ mac, guestName, address, addressing }) => ({
      mac,
      guestName,
      ...(address === undefined ? {} : { address }),
      ...(addressing === undefined ? {} : { addressing }),
    }));
    // A test is never gone back from.
    const tracksWrites = landed.purpose !== "test";
    const machine = { name, cpuCount, memoryBytes, firmware, network, nics, disks };
    const spec: LaunchSpec = { ...machine, hasSerialConsole, unlockKeys, tracksWrites };
    try {
      const { hydration } = await this.#target.under(authority).launch(spec, signal);
      this.#held.set(name, { landed, disks });
      return hydration;
    } catch (error) {
      this.#held.set(name, { landed, disks });
      await this.#release(name);
      throw error;
    }
  }

  /** After a restart: serves the contents again that a running machine still depends on. */
  async reattach(landed: LandedMachine): Promise<void> {
    const { name } = landed.launch;
    const { power, bytesToFill } = await this.#target.status(name);
    if (power === "gone" || bytesToFill === 0 || this.#held.has(name)) return;
    const disks = await this.#openDisks(landed);
    this.#held.set(name, { landed, disks });
    await this.#target.reattach(name, disks);
  }

  async fill(authority: Authority, name: string, onProgress: (bytesLeft: number) => void, signal: AbortSignal): Promise<void> {
    await this.#target.under(authority).fill(name, onProgress, signal);
    await this.#release(name);
  }

  /** Ends the machine and proves that the target knows it no more. */
  async remove(authority: Authority, name: string): Promise<void> {
    await this.#target.under(authority).remove(name);
    const left = await this.#target.list();
    if (left.includes(name))
      throw new Fault("LeftoverFound", `could not remove the landed machine ${name}: it is still there`, { evidence: { leftover: name } });
    await this.#release(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The machines go on, and so do the holds on their points.
    for (const { disks } of this.#held.values()) await closeAll(disks);
    this.#held.clear();
  }

  async #openDisks(landed: LandedMachine): Promise<readonly LandingDisk[]> {
    const opened: LandingDisk[] = [];
    try {
      if (landed.purpose === "made") {
        for (const [index, { diskId, isBoot }] of landed.launch.disks.entries())
          opened.push({ diskId, isBoot, content: await this.#openManaged(parseResourceId(landed.diskIds[index] ?? "")) });
      } else await this.#openPoint(landed, opened);
    } catch (error) {
      await closeAll(opened);
      throw error;
    }
    return opened;
  }

  async #openPoint(landed: Landed, opened: LandingDisk[]): Promise<void> {
    const reader = await this.#openReader(landed.vaultId);
    if (!(await reader.holdPoint(landed.pointId, holdIdOf(landed))))
      throw new Fault("NotFound", `could not open the recovery point ${landed.pointId}: it is gone, or retention removes it`, {
        evidence: { pointId: landed.pointId },
        action: "choose a newer recovery point",
      });
    const point = await reader.point(landed.pointId);
    for (const { diskId, isBoot } of landed.launch.disks) {
      const root = point?.disks.find((disk) => disk.diskId === diskId)?.root;
      const content = await openContent(reader, landed, diskId);
      opened.push({ diskId, isBoot, content, ...(root === undefined ? {} : { root }) });
    }
  }

  async #release(name: string): Promise<void> {
    const held = this.#held.get(name);
    if (held === undefined) return;
    await closeAll(held.disks);
    if (held.landed.purpose !== "made") {
      const reader = await this.#openReader(held.landed.vaultId);
      await reader.releasePoint(held.landed.pointId, holdIdOf(held.landed));
    }
    this.#held.delete(name); // Only now: a release that failed is tried again with the step.
  }
}

async function openContent(reader: VaultReader, { pointId, upgradeFile }: Landed, diskId: DiskId): Promise<Disk> {
  if (diskId !== upgradeDiskId) return await reader.openDisk(pointId, diskId);
  assert(upgradeFile !== undefined, "a machine with an upgrade disk knows its file");
  return await openFileDisk(upgradeFile, { access: "read" });
}

interface Held {
  readonly landed: LandedMachine;
  readonly disks: readonly LandingDisk[];
}

/** One hold a landed machine, the same after a restart. */
function holdIdOf({ vmId }: Landed): string {
  return `landed-${vmId}`;
}

/** Network of an ARM id or a plain name; nothing given is the isolated one. */
export function toNetwork(networkId: string | undefined): LandingNetwork {
  const name = networkId?.split("/").at(-1);
  return name === undefined || name === "" ? { kind: "isolated" } : { kind: "named", name };
}

async function closeAll(disks: readonly LandingDisk[]): Promise<void> {
  for (const disk of disks) await disk.content[Symbol.asyncDispose]();
}
