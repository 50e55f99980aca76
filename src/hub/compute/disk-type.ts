// Managed disks that are made by upload: a row, a file, an address to write it at, and the machine that has it.

import { sql } from "kysely";
import { z } from "zod";
import { ArmFault } from "../api/arm-errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import {
  defineAction,
  type ActionDefinition,
  type ArmCall,
  type DeleteOutcome,
  type Desired,
  type WriteOutcome,
} from "../api/resource-type.ts";
import { Fault } from "../../contract/errors.ts";
import { diskBytesMax } from "../../disk/geometry.ts";
import { vhdFooterBytes } from "../../landing/vhd-footer.ts";
import { presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";
import { requireSame } from "../resources/same-as-present.ts";
import { removeFree } from "./remove-free.ts";
import { diskAddress } from "./disk-door.ts";

export const diskType = "Microsoft.Compute/disks";
const machineType = "Microsoft.Compute/virtualMachines";
const mebibyte = 1 << 20;
const lifeSecondsMax = 2 ** 32 - 1;

/** What a PUT takes. Members that are answered besides may be sent back as they are. */
export const diskInput = z.strictObject({
  creationData: z.strictObject({
    createOption: z.literal("Upload", "disks are made by upload here"),
    uploadSizeBytes: z
      .number()
      .int()
      .min(mebibyte + vhdFooterBytes)
      .max(diskBytesMax)
      .refine((bytes) => (bytes - vhdFooterBytes) % mebibyte === 0, "a whole number of MiB and the footer's 512 bytes"),
  }),
  osType: z.enum(["Linux", "Windows"]).nullish(),
  hyperVGeneration: z.enum(["V1", "V2"]).nullish(),
  networkAccessPolicy: z.enum(["AllowAll", "DenyAll"]).nullish(),
  publicNetworkAccess: z.enum(["Enabled", "Disabled"]).nullish(),
  securityProfile: z.strictObject({ securityType: z.literal("Standard", "machines have no virtual TPM here").nullish() }).nullish(),
  diskSizeGB: z.number().nullish(),
  diskSizeBytes: z.number().nullish(),
  diskState: z.string().max(40).nullish(),
  timeCreated: z.string().max(40).nullish(),
  uniqueId: z.string().max(80).nullish(),
});

const storedShape = z.object({
  creationData: z.object({ createOption: z.literal("Upload"), uploadSizeBytes: z.number() }),
  osType: z.string().optional(),
  hyperVGeneration: z.enum(["V1", "V2"]).optional(),
  networkAccessPolicy: z.string(),
  publicNetworkAccess: z.string(),
  uniqueId: z.string(),
  /** Whose hub has the file. */
  place: z.string().optional(),
  diskState: z.enum(["ReadyToUpload", "ActiveUpload", "Unattached", "ActiveSAS"]),
});
type StoredDisk = z.infer<typeof storedShape>;

/** Undefined: not a disk that was uploaded. */
export function storedDisk(resource: Resource | undefined): StoredDisk | undefined {
  const parsed = storedShape.safeParse(resource?.properties);
  return parsed.success ? parsed.data : undefined;
}

export interface DiskFront {
  readonly services: HubServices;
  readonly place?: string;
}

/** `existing` is a disk that was uploaded, or nothing. */
export async function putDisk(front: DiskFront, call: ArmCall, desired: Desired<z.infer<typeof diskInput>>): Promise<WriteOutcome> {
  const { services, place } = front;
  const { properties, envelope, existing } = desired;
  if (Array.isArray(envelope["zones"]) && envelope["zones"].length > 0)
    throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not save the disk ${call.id.name}: the one host has no zones`, {
      target: "zones",
    });
  const present = storedDisk(existing);
  const {
    creationData,
    osType,
    hyperVGeneration,
    networkAccessPolicy,
    publicNetworkAccess,
    securityProfile: _none,
    ...others
  } = properties;
  requireSame(`the disk ${call.id.name}`, others, existing === undefined ? {} : await shownOf(front, existing));
  if (present !== undefined) requireSame(`the disk ${call.id.name}`, { creationData }, { creationData: present.creationData });
  const stored: StoredDisk = {
    creationData,
    ...(osType ? { osType } : {}),
    ...(hyperVGeneration ? { hyperVGeneration } : {}),
    networkAccessPolicy: networkAccessPolicy ?? present?.networkAccessPolicy ?? "AllowAll",
    publicNetworkAccess: publicNetworkAccess ?? present?.publicNetworkAccess ?? "Enabled",
    uniqueId: present?.uniqueId ?? services.random.uuid(),
    ...(present === undefined ? (place === undefined ? {} : { place }) : present.place === undefined ? {} : { place: present.place }),
    diskState: present?.diskState ?? "ReadyToUpload",
  };
  if (present === undefined) await services.managedDisks.create(call.id, creationData.uploadSizeBytes);
  const { location } = desired;
  const { resource, isNew } = await services.resources.save({
    id: call.id,
    location,
    envelope: withoutZones(envelope),
    properties: stored,
  });
  return { kind: "answered", isNew, body: await presentDisk(front, resource) };
}

function withoutZones({ zones: _zones, ...envelope }: JsonObject): JsonObject {
  return envelope;
}

export async function deleteDisk(front: DiskFront, call: ArmCall): Promise<DeleteOutcome> {
  const { services } = front;
  const owner = await removeFree(services, call.id, ownerOf);
  if (owner !== undefined)
    throw new Fault("StateConflict", `could not delete the disk ${call.id.name}: it is attached to a machine`, {
      evidence: { resourceId: call.id.text, machineId: owner },
      action: "delete the machine first",
      retry: "never",
    });
  await services.secrets.removeAll(call.id.key);
  await services.managedDisks.remove(call.id);
  return { kind: "done" };
}

const accessInput = z.strictObject({
  access: z.enum(["Read", "Write"]),
  durationInSeconds: z.number().int().min(1).max(lifeSecondsMax),
  fileFormat: z.literal("VHD").optional(),
  getSecureVMGuestStateSAS: z.literal(false).optional(),
});

/** `otherwise` refuses what is no uploaded disk. */
export function diskActions(
  front: DiskFront,
  otherwise: (call: ArmCall, doing: string) => never,
): Readonly<Record<string, ActionDefinition>> {
  const { services } = front;
  // What the router found is what is shown; what is decided on is the row.
  const read = async (call: ArmCall, doing: string): Promise<StoredDisk> =>
    storedDisk(await services.resources.find(call.id)) ?? otherwise(call, doing);
  return {
    beginGetAccess: defineAction({
      body: accessInput,
      run: async (call, { access, durationInSeconds }) => {
        const { diskState } = await read(call, "open");
        const owner = await ownerOf(services.database.db, call.id);
        const isFresh = diskState === "ReadyToUpload" || diskState === "ActiveUpload";
        if (owner !== undefined || isFresh !== (access === "Write"))
          throw new Fault(
            "StateConflict",
            `could not open the disk ${call.id.name} to ${access}: it is ${owner === undefined ? diskState : "Attached"}`,
            {
              evidence: { diskState: owner === undefined ? diskState : "Attached", access },
              retry: "never",
            },
          );
        await changeState(front, call.id, access === "Write" ? "ActiveUpload" : "ActiveSAS");
        const wanted = { id: call.id, origin: call.origin, access, lifeSeconds: durationInSeconds };
        return { kind: "done", body: { accessSAS: await diskAddress(services, wanted) } };
      },
    }),
    endGetAccess: defineAction({
      body: z.strictObject({}),
      run: async (call) => {
        await read(call, "close");
        await services.secrets.removeAll(call.id.key);
        await services.managedDisks.settle(call.id); // A write that was allowed a moment ago ends before the disk counts as written.
        await changeState(front, call.id, (await services.managedDisks.isWhole(call.id)) ? "Unattached" : "ReadyToUpload");
        return { kind: "done", body: {} };
      },
    }),
  };
}

async function changeState({ services }: DiskFront, id: ResourceId, diskState: StoredDisk["diskState"]): Promise<void> {
  await services.resources.update(id, ({ properties }) => ({ properties: { ...properties, diskState } }));
}

/** The machine that was made of it. */
async function ownerOf(db: Queryable, disk: ResourceId): Promise<string | undefined> {
  const found = await sql<{ id: string }>`select id from resources where type = ${machineType.toLowerCase()}
    and properties->>'purpose' = 'made' and properties->'diskIds' @> ${JSON.stringify([disk.key])}::jsonb limit 1`.execute(db);
  return found.rows[0]?.id;
}

export async function presentDisk(front: DiskFront, resource: Resource): Promise<JsonObject> {
  const owner = await ownerOf(front.services.database.db, resource.id);
  const shown = presentResource(resource, diskType, await shownOf(front, resource));
  return owner === undefined ? shown : { ...shown, managedBy: owner };
}

async function shownOf({ services }: DiskFront, resource: Resource): Promise<JsonObject> {
  const stored = storedDisk(resource);
  if (stored === undefined) return resource.properties;
  const { place: _place, ...disk } = stored;
  const diskSizeBytes = disk.creationData.uploadSizeBytes - vhdFooterBytes;
  const owner = await ownerOf(services.database.db, resource.id);
  return {
    ...disk,
    diskState: owner === undefined ? disk.diskState : "Attached",
    diskSizeGB: Math.ceil(diskSizeBytes / 2 ** 30),
    diskSizeBytes,
    timeCreated: resource.createdAt,
  };
}
