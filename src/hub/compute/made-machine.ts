// Machines that a client makes of disks it has uploaded: what is asked, what is stored, and the job that starts them.

import { sql } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { vhdFooterBytes } from "../../landing/vhd-footer.ts";
import { ArmFault, parseInput } from "../api/arm-errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { ArmCall, Desired, WriteOutcome } from "../api/resource-type.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import { defineJob, type JobKind, type Queryable, type StepContext } from "../jobs/job.ts";
import { bindToPlace } from "../jobs/job-store.ts";
import { authorityOf, landedMachineShape, madeShape, type Made } from "../replication/landed.ts";
import { presentMachine } from "../replication/machine-view.ts";
import { machineType, toLandedName } from "../replication/names.ts";
import type { Replication, ReplicationFront } from "../replication/world.ts";
import { diskType, storedDisk } from "./disk-type.ts";
import { interfaceType, readInterface } from "./interface-type.ts";
import { lockMadeMachines } from "./remove-free.ts";
import { findSize, hostSize } from "./machine-sizes.ts";

const networkType = "Microsoft.Network/virtualNetworks";

const attachedShape = z.strictObject({
  name: z.string().max(80).nullish(),
  createOption: z.literal("Attach", "machines are made of disks that were uploaded"),
  deleteOption: z.literal("Detach", "a disk is deleted by its own name").nullish(),
  caching: z.enum(["None", "ReadOnly", "ReadWrite"]).nullish(),
  managedDisk: z.strictObject({ id: z.string().max(2048) }),
});
/** What a PUT takes: the part of Azure's model that a machine of specialised disks needs. Anything else is refused by its path. */
export const machineInput = z.strictObject({
  hardwareProfile: z.strictObject({ vmSize: z.string().max(80) }),
  storageProfile: z.strictObject({
    osDisk: attachedShape.extend({ osType: z.enum(["Linux", "Windows"]) }),
    dataDisks: z
      .array(attachedShape.extend({ lun: z.number().int().min(0).max(63) }))
      .max(15)
      .nullish(),
  }),
  networkProfile: z.strictObject({
    networkInterfaces: z
      .array(
        z.strictObject({
          id: z.string().max(2048),
          properties: z
            .strictObject({
              primary: z.boolean().nullish(),
              deleteOption: z.literal("Detach", "an interface is deleted by its own name").nullish(),
            })
            .nullish(),
        }),
      )
      .max(8),
  }),
  diagnosticsProfile: z.strictObject({ bootDiagnostics: z.strictObject({ enabled: z.boolean().nullish() }).nullish() }).nullish(),
  securityProfile: z.strictObject({ securityType: z.literal("Standard", "machines have no virtual TPM here").nullish() }).nullish(),
  licenseType: z.string().max(80).nullish(),
});
type MachineInput = z.infer<typeof machineInput>;

/** Answers the machine that is there when the same one is asked for again; one that failed is begun anew. */
export async function putMachine(front: ReplicationFront, call: ArmCall, desired: Desired<JsonObject>): Promise<WriteOutcome> {
  const { existing, envelope, location } = desired;
  const present = existing === undefined ? undefined : landedMachineShape.parse(existing.properties);
  if (present !== undefined && present.purpose !== "made") throw landedHere(call);
  const { zones, ...kept } = envelope;
  if (Array.isArray(zones) && zones.length > 0)
    throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not make the machine ${call.id.name}: the one host has no zones`, {
      target: "zones",
    });
  const wanted = await resolveWish(front, call.id, parseInput(machineInput, desired.properties, "the resource's properties", "properties"));
  const made: Made = { ...wanted, vmId: present?.vmId ?? front.services.random.uuid() };
  if (present !== undefined && !isSame(present, made))
    throw new Fault("StateConflict", `could not change the machine ${call.id.name}: its size, disks and cards are those it was made with`, {
      evidence: { resourceId: call.id.text },
      action: "delete the machine and make it again",
      retry: "never",
    });
  const isWhole = existing?.provisioningState === "Succeeded";
  await front.services.database.db.transaction().execute(async (db) => {
    await lockMadeMachines(db);
    await requireParts(db, call.id, made);
    await refuseTaken(db, call.id, made);
    await saveMade(db, call.id, { made: present ?? made, location, envelope: kept, state: isWhole ? "Succeeded" : "Creating" });
  });
  if (isWhole) return { kind: "answered", body: await shown(front, call.id) };
  const operationId = await front.engine.submit({
    kind: "MachineCreation",
    scope: call.id.key,
    targetId: call.id.text,
    targetName: call.id.name,
    lockKey: call.id.key,
    actor: call.caller.name,
    parameters: { machineId: call.id.text },
  });
  return { kind: "accepted", operationId, body: await shown(front, call.id) };
}

async function shown(front: ReplicationFront, id: ResourceId): Promise<JsonObject> {
  return await presentMachine(front, await front.services.resources.get(id));
}

function landedHere({ id }: ArmCall): Fault {
  return new Fault(
    "OperationNotSupported",
    `could not create the machine ${id.name}: it landed from a recovery point, and is not made anew`,
    {
      evidence: { resourceId: id.text },
      action: "protect a machine and start a test failover or a failover of it",
    },
  );
}

/** What a client names, looked up: each disk uploaded and whole, each card in one network. */
async function resolveWish(front: ReplicationFront, id: ResourceId, input: MachineInput): Promise<Omit<Made, "vmId">> {
  const { services, place } = front;
  const refuse = (reason: string, evidence: Readonly<Record<string, string | number>> = {}): never => {
    throw new ArmFault("InputInvalid", "InvalidParameter", `could not make the machine ${id.name}: ${reason}`, { evidence });
  };
  const size =
    findSize(input.hardwareProfile.vmSize, hostSize()) ?? refuse("there is no such size here", { vmSize: input.hardwareProfile.vmSize });
  const { osDisk, dataDisks } = input.storageProfile;
  const attached = [osDisk, ...(dataDisks ?? []).toSorted((one, other) => one.lun - other.lun)];
  const disks: Made["launch"]["disks"] = [];
  const diskIds: string[] = [];
  let firmware: "bios" | "efi" = "bios";
  for (const [index, { managedDisk, name }] of attached.entries()) {
    const diskId = parseOfType(managedDisk.id, diskType) ?? refuse("a managed disk is named by its id", { id: managedDisk.id });
    if (diskId.parentKey !== id.parentKey) refuse("its disks stand in its resource group", { id: diskId.text });
    const stored =
      storedDisk(await services.resources.find(diskId)) ?? refuse("there is no such disk that was uploaded", { id: diskId.text });
    if (stored.diskState !== "Unattached") refuse(`the disk ${diskId.name} is not ready`, { diskState: stored.diskState });
    if (stored.place !== undefined && place !== undefined && stored.place !== place) refuse(`the disk ${diskId.name} is at another host`);
    if (name && name.toLowerCase() !== diskId.name.toLowerCase()) refuse(`the disk ${diskId.name} keeps its name`, { name });
    if (index === 0 && stored.hyperVGeneration === "V2") firmware = "efi";
    diskIds.push(diskId.key);
    const sizeBytes = stored.creationData.uploadSizeBytes - vhdFooterBytes;
    disks.push({ diskId: parseDiskId(`disk-${index}`), isBoot: index === 0, sizeBytes, name: diskId.name });
  }
  if (new Set(diskIds).size < diskIds.length) refuse("a disk is attached once");
  const { nics, network, interfaceIds } = await resolveNics(front, id, input, refuse);
  const licence = input.licenseType ? { licenseType: input.licenseType } : {};
  const launch = {
    name: toLandedName(id.name, ""),
    cpuCount: size.numberOfCores,
    memoryBytes: size.memoryInMB * 2 ** 20,
    firmware,
    disks,
    nics,
    network,
  };
  return { purpose: "made", ...(place === undefined ? {} : { place }), vmSize: size.name, ...licence, diskIds, interfaceIds, launch };
}

type Refuse = (reason: string, evidence?: Readonly<Record<string, string | number>>) => never;

async function resolveNics(
  { services }: ReplicationFront,
  machine: ResourceId,
  input: MachineInput,
  refuse: Refuse,
): Promise<Pick<Made["launch"], "nics" | "network"> & Pick<Made, "interfaceIds">> {
  const given = input.networkProfile.networkInterfaces;
  // The card that is said to be primary comes first.
  const ordered = [...given.filter((nic) => nic.properties?.primary === true), ...given.filter((nic) => nic.properties?.primary !== true)];
  const nics: Made["launch"]["nics"] = [];
  const interfaceIds: string[] = [];
  const networks = new Set<string>();
  for (const [index, { id }] of ordered.entries()) {
    const nicId = parseOfType(id, interfaceType) ?? refuse("an interface is named by its id", { id });
    if (nicId.parentKey !== machine.parentKey) refuse("its interfaces stand in its resource group", { id });
    const nic = (await readInterface(services, nicId)) ?? refuse("there is no such interface that a machine could have", { id });
    networks.add(parseOfType(nic.subnetId.parentText, networkType)?.name ?? "");
    interfaceIds.push(nicId.key);
    nics.push({
      mac: nic.mac,
      guestName: nic.guestName ?? `eth${index}`,
      name: nicId.name,
      ...(nic.address === undefined ? {} : { address: nic.address }),
    });
  }
  if (networks.size > 1) refuse("all cards of a machine are in one network here", { networks: [...networks].join(", ") });
  const [name] = networks;
  return { nics, interfaceIds, network: name === undefined ? { kind: "isolated" } : { kind: "named", name } };
}

function parseOfType(text: string, type: string): ResourceId | undefined {
  try {
    const id = parseResourceId(text);
    return id.type.toLowerCase() === type.toLowerCase() ? id : undefined;
  } catch {
    return undefined; // Told by the caller as a wrong value.
  }
}

function isSame(one: Made, other: Made): boolean {
  const parts = ({ vmSize, diskIds, interfaceIds, licenseType }: Made): string =>
    JSON.stringify([vmSize, diskIds, interfaceIds, licenseType ?? ""]);
  return parts(one) === parts(other);
}

/** Under the lock: what was found a moment ago is still there. */
async function requireParts(db: Queryable, id: ResourceId, { diskIds, interfaceIds }: Made): Promise<void> {
  const parts = [...diskIds, ...interfaceIds];
  const found = await db.selectFrom("resources").select("key").where("key", "in", parts).execute();
  if (found.length === parts.length) return;
  throw new Fault("StateConflict", `could not make the machine ${id.name}: a disk or a card of it was removed meanwhile`, {
    evidence: { resourceId: id.text },
    retry: "never",
  });
}

/** Under the lock: no disk, card or name of the target belongs to two machines. */
async function refuseTaken(db: Queryable, id: ResourceId, { diskIds, interfaceIds, launch }: Made): Promise<void> {
  const parts = [...diskIds, ...interfaceIds];
  const found = await sql<{ id: string }>`select id from resources where type = ${machineType.toLowerCase()} and key <> ${id.key}
    and (properties->'launch'->>'name' = ${launch.name}
      or exists (select 1 from jsonb_array_elements_text(coalesce(properties->'diskIds', '[]') || coalesce(properties->'interfaceIds', '[]')) as part
        where part = any(${parts}::text[]))) limit 1`.execute(db);
  const taken = found.rows[0]?.id;
  if (taken === undefined) return;
  throw new Fault("StateConflict", `could not make the machine ${id.name}: another machine has its name, a disk or a card of it`, {
    evidence: { machineId: taken },
    retry: "never",
  });
}

async function saveMade(
  db: Queryable,
  id: ResourceId,
  row: {
    readonly made: Made;
    readonly location: string | undefined;
    readonly envelope: JsonObject;
    readonly state: "Creating" | "Succeeded";
  },
): Promise<void> {
  const { made, location, envelope, state } = row;
  await sql`insert into resources (key, id, type, name, parent_key, location, envelope, properties, provisioning_state, etag, created_at, updated_at)
    values (${id.key}, ${id.text}, ${machineType.toLowerCase()}, ${id.name}, ${id.parentKey}, ${location ?? null},
      ${JSON.stringify(envelope)}::jsonb, ${JSON.stringify(made)}::jsonb, ${state}, '"' || gen_random_uuid() || '"', clock_timestamp(), clock_timestamp())
    on conflict (key) do update set envelope = excluded.envelope, provisioning_state = excluded.provisioning_state,
      etag = excluded.etag, updated_at = excluded.updated_at`.execute(db);
}

const parametersShape = z.object({ machineId: z.string() });
interface State {
  readonly hydrationChanges?: readonly string[];
  readonly isFilled?: boolean;
}
type Context = StepContext<z.infer<typeof parametersShape>, State>;
const changesMax = 500;

/** Starts the machine on its disks, and copies them until it stands by itself. */
export function defineMachineCreation(world: Replication): JobKind {
  return defineJob<z.infer<typeof parametersShape>, State>({
    kind: "MachineCreation",
    title: "make the machine",
    parameters: parametersShape,
    steps: [
      {
        name: "launch",
        title: "start the machine on the disks that were uploaded",
        run: async (context) => {
          const made = await readMade(world, context);
          const { place } = made;
          if (place !== undefined) await context.write(async (db) => await bindToPlace(db, context.jobId, place));
          await context.confirm();
          const { changes } = await world.landings.launch(authorityOf(context), made, { signal: context.signal });
          return { hydrationChanges: changes.slice(0, changesMax) };
        },
        undo: async (context) => {
          const made = await readMade(world, context);
          await context.confirm();
          await world.landings.remove(authorityOf(context), made.launch.name);
        },
      },
      {
        name: "fill",
        title: "copy the disks",
        weight: 4,
        run: async (context) => {
          const made = await readMade(world, context);
          const sizeBytes = made.launch.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
          // A hub that was killed holds the disks no more: a launch of a machine that runs gives them to it again.
          await world.landings.launch(authorityOf(context), made, { signal: context.signal });
          let told: Promise<void> = Promise.resolve();
          const onProgress = (left: number): void => {
            told = told.then(async () => await context.progress(100 * (1 - left / sizeBytes), `${left} bytes are left`));
          };
          await context.confirm();
          await world.landings.fill(authorityOf(context), made.launch.name, onProgress, context.signal);
          await told;
          return { isFilled: true };
        },
        undo: "the copy goes with the machine",
      },
    ],
    settle: async (db, { parameters: { machineId }, outcome }) => {
      const state = outcome.kind === "succeeded" ? "Succeeded" : "Failed";
      await sql`update resources set provisioning_state = ${state}, etag = '"' || gen_random_uuid() || '"', updated_at = clock_timestamp()
        where key = ${machineId.toLowerCase()} and type = ${machineType.toLowerCase()}`.execute(db);
      return undefined;
    },
  });
}

async function readMade({ services }: Replication, { parameters }: Context): Promise<Made> {
  const resource: Resource | undefined = await services.resources.find(parameters.machineId);
  if (resource !== undefined) return madeShape.parse(resource.properties);
  throw new Fault("NotFound", "could not make the machine: its row is gone", { evidence: { machineId: parameters.machineId } });
}
