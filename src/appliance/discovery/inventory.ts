// Reads a vCenter's machines with the property collector, in bounded pages, into the typed values of the hub's inventory.

import { z } from "zod";
import { discoveredMachineShape, type DiscoveredMachine } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import { decodeAnswer, referenceShape, referenceXml, textShape, type ManagedObject } from "./soap.ts";
import type { VcenterSession } from "./vcenter-session.ts";

const machinesPerPage = 250;
const machinesMax = 20_000;

const machinePaths = [
  "name",
  "config.uuid",
  "config.instanceUuid",
  "config.guestFullName",
  "config.firmware",
  "config.template",
  "config.hardware.numCPU",
  "config.hardware.memoryMB",
  "config.hardware.device",
  "guest.net",
  "guest.ipAddress",
  "runtime.powerState",
] as const;

const pageShape = z.object({
  returnval: z
    .object({
      token: textShape.optional(),
      objects: z
        .array(z.object({ obj: referenceShape, propSet: z.array(z.object({ name: textShape, val: z.unknown() })).default([]) }))
        .default([]),
    })
    .optional(),
});

const deviceShape = z.looseObject({
  "@type": z.string(),
  key: textShape.optional(),
  controllerKey: textShape.optional(),
  deviceInfo: z.object({ label: textShape.optional(), summary: textShape.optional() }).optional(),
  capacityInBytes: textShape.optional(),
  capacityInKB: textShape.optional(),
  macAddress: textShape.optional(),
  backing: z.looseObject({ uuid: textShape.optional(), deviceName: textShape.optional() }).optional(),
});
type Device = z.infer<typeof deviceShape>;
const devicesShape = z.object({ VirtualDevice: z.array(deviceShape).default([]) });
const guestNicsShape = z.object({
  GuestNicInfo: z.array(z.looseObject({ ipAddress: z.array(textShape).default([]), network: textShape.optional() })).default([]),
});

/** A machine with the object by which the vCenter takes orders for it. */
export interface InventoryEntry {
  readonly object: ManagedObject;
  readonly machine: DiscoveredMachine;
}

/** Every machine but templates. The view that lists them is removed again. */
export async function readInventory(session: VcenterSession, vcenterId: string, signal?: AbortSignal): Promise<readonly InventoryEntry[]> {
  const view = await createView(session, signal);
  try {
    const entries: InventoryEntry[] = [];
    for await (const page of pagesOf(session, view, signal)) {
      for (const { obj, propSet } of page) {
        const entry = toEntry(vcenterId, obj, new Map(propSet.map(({ name, val }) => [name, val])));
        if (entry !== undefined) entries.push(entry);
      }
      if (entries.length > machinesMax) {
        throw new Fault("VcenterRefused", `the vCenter shows more than ${machinesMax} machines`, { evidence: { vcenterId, machinesMax } });
      }
    }
    return entries;
  } finally {
    await session.call({ method: "DestroyView", on: view, body: "" }, signal).catch(() => undefined); // It ends with the session.
  }
}

async function createView(session: VcenterSession, signal?: AbortSignal): Promise<ManagedObject> {
  const { viewManager, rootFolder } = session.service;
  const body = `${referenceXml("container", rootFolder)}<type>VirtualMachine</type><recursive>true</recursive>`;
  const answer = await session.call({ method: "CreateContainerView", on: viewManager, body }, signal);
  return decodeAnswer(z.object({ returnval: referenceShape }), answer, "view").returnval;
}

type Page = NonNullable<z.infer<typeof pageShape>["returnval"]>["objects"];

async function* pagesOf(session: VcenterSession, view: ManagedObject, signal?: AbortSignal): AsyncGenerator<Page> {
  const collector = session.service.propertyCollector;
  const paths = machinePaths.map((path) => `<pathSet>${path}</pathSet>`).join("");
  const body =
    `<specSet><propSet><type>VirtualMachine</type><all>false</all>${paths}</propSet><objectSet>${referenceXml("obj", view)}<skip>true</skip>` +
    `<selectSet xsi:type="TraversalSpec"><name>view</name><type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet></specSet>` +
    `<options><maxObjects>${machinesPerPage}</maxObjects></options>`;
  let answer = await session.call({ method: "RetrievePropertiesEx", on: collector, body }, signal);
  for (;;) {
    const page = decodeAnswer(pageShape, answer, "machine list").returnval;
    if (page === undefined) return;
    yield page.objects;
    if (page.token === undefined) return;
    const token = `<token>${page.token}</token>`;
    answer = await session.call({ method: "ContinueRetrievePropertiesEx", on: collector, body: token }, signal);
  }
}

/** undefined for templates and for machines that are being made or cannot be read. */
function toEntry(vcenterId: string, object: ManagedObject, values: ReadonlyMap<string, unknown>): InventoryEntry | undefined {
  const text = (path: (typeof machinePaths)[number]): string | undefined => {
    const parsed = textShape.safeParse(values.get(path));
    return parsed.success ? parsed.data : undefined;
  };
  const infrastructureId = text("config.instanceUuid");
  if (infrastructureId === undefined || text("config.template") === "true") return undefined;
  const devices = values.has("config.hardware.device")
    ? decodeAnswer(devicesShape, values.get("config.hardware.device"), "device list").VirtualDevice
    : [];
  const guestNics = guestNicsShape.safeParse(values.get("guest.net"));
  const nicAddresses = guestNics.success ? guestNics.data.GuestNicInfo.flatMap((nic) => nic.ipAddress) : [];
  const addresses = [...new Set([...nicAddresses, text("guest.ipAddress") ?? ""])].filter((each) => each !== "");
  const machine = decodeAnswer(
    discoveredMachineShape,
    {
      infrastructureId,
      vcenterId,
      name: text("name") ?? object.id,
      smbiosUuid: text("config.uuid") ?? "",
      guestOs: text("config.guestFullName") ?? "",
      powerState: text("runtime.powerState") ?? "poweredOff",
      cpuCount: Number(text("config.hardware.numCPU") ?? 0),
      memoryBytes: Number(text("config.hardware.memoryMB") ?? 0) * 2 ** 20,
      firmware: text("config.firmware") === "efi" ? "efi" : "bios",
      addresses: addresses.slice(0, 64),
      disks: disksOf(devices).slice(0, 64),
      nics: nicsOf(devices).slice(0, 64),
    },
    `machine ${object.id}`,
  );
  return { object, machine };
}

function disksOf(devices: readonly Device[]): unknown[] {
  const controllers = new Map(devices.map((device) => [device.key, device["@type"]]));
  return devices
    .filter((device) => device["@type"] === "VirtualDisk")
    .map((device) => ({
      label: device.deviceInfo?.label ?? "",
      sizeBytes: Number(device.capacityInBytes ?? Number(device.capacityInKB ?? 0) * 1024),
      controller: controllers.get(device.controllerKey) ?? "",
      ...(device.backing?.uuid === undefined ? {} : { uuid: device.backing.uuid.toLowerCase() }),
    }));
}

function nicsOf(devices: readonly Device[]): unknown[] {
  return devices
    .filter((device) => device.macAddress !== undefined)
    .map((device) => ({
      label: device.deviceInfo?.label ?? "",
      mac: (device.macAddress ?? "").toLowerCase(),
      network: device.backing?.deviceName ?? device.deviceInfo?.summary ?? "",
      adapter: device["@type"],
    }));
}
