// What ARM clients ask for around landed machines: disks, network interfaces, sizes, and lists that are empty here.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ArmCall, type ResourceSource, type ResourceType } from "../api/resource-type.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import { parseInput } from "../api/arm-errors.ts";
import { deleteDisk, diskActions, diskInput, presentDisk, putDisk, storedDisk } from "../compute/disk-type.ts";
import { deleteInterface, interfaceInput, isMade, putInterface, showInterfaceRow } from "../compute/interface-type.ts";
import { hostSize, sizeLadder } from "../compute/machine-sizes.ts";
import {
  diskType,
  interfaceType,
  machineIdOf,
  seeMachine,
  showDisks,
  showInterfaces,
  showMachine,
  sizeName,
  type SeenMachine,
} from "./machine-view.ts";
import { emptyType, fixedList, locationType } from "../resources/plain-types.ts";
import { machineType } from "./names.ts";
import { findMachineWithPart } from "./part-names.ts";
import type { ReplicationFront } from "./world.ts";

const anything = z.looseObject({});

export function machineParts(front: ReplicationFront): readonly ResourceType[] {
  return [
    diskResource(front),
    ...interfaceResources(front),
    locationType("Microsoft.Compute"),
    fixedList("Microsoft.Compute/locations/vmSizes", async () => sizes()),
    fixedList(`${machineType}/vmSizes`, async () => sizes()),
    defineResource({ ...readOnly, type: "Microsoft.Compute/locations/virtualMachines", source: { get: none, list: machinesAt(front) } }),
    emptyType("Microsoft.Compute/availabilitySets", "the one host of landed machines has no fault domains"),
  ];
}

const readOnly = { within: "parent", properties: anything, onPut: "refuse", onDelete: "refuse" } as const;
const none = async (): Promise<undefined> => undefined;

/** The first says what the host has: a landed machine keeps what its source had. The others are for machines that are made. */
function sizes(): readonly JsonObject[] {
  const largestMB = 2 ** 31 - 1;
  const host = hostSize();
  return [{ name: sizeName, ...host }, ...sizeLadder(host)].map((size) => ({
    ...size,
    maxDataDiskCount: host.maxDataDiskCount,
    osDiskSizeInMB: largestMB,
    resourceDiskSizeInMB: 0,
  }));
}

function diskResource(front: ReplicationFront): ResourceType {
  const fixed = (call: ArmCall, doing: string): never => {
    throw new Fault("OperationNotSupported", `could not ${doing} the disk ${call.id.name}: it belongs to a landed machine`, {
      evidence: { resourceId: call.id.text },
      action: "delete the machine to delete its disks; export a recovery point to get their contents",
    });
  };
  const { resources } = front.services;
  return defineResource({
    type: diskType,
    within: "resourceGroup",
    properties: anything,
    inputs: { put: diskInput },
    source: withRows(front, diskType, {
      parts: partSource(front, async (seen) => showDisks(seen)),
      show: async (row) => await presentDisk(front, row),
    }),
    onPut: async (call, desired) => {
      if ((await findMachine(front, call.id)) !== undefined) return fixed(call, "save");
      const properties = parseInput(diskInput, desired.properties, "the disk's properties", "properties");
      return await putDisk(front, call, { ...desired, properties });
    },
    onDelete: async (call) => {
      if (storedDisk(await resources.find(call.id)) !== undefined) return await deleteDisk(front, call);
      throw new Fault("StateConflict", `could not delete the disk ${call.id.name}: it is attached to a landed machine`, {
        evidence: { resourceId: call.id.text },
        action: "delete the machine; its disks go with it",
        retry: "never",
      });
    },
    actions: diskActions(front, fixed),
  });
}

/** Some are rows, others what landed machines have. Rows come first in lists. */
function withRows(
  { services: { resources } }: ReplicationFront,
  type: string,
  { parts, show }: { readonly parts: ResourceSource; readonly show: (row: Resource) => Promise<JsonObject> },
): ResourceSource {
  const machinesMark = "machines ";
  return {
    get: async (call) => {
      const row = await resources.find(call.id);
      return row === undefined ? await parts.get(call) : await show(row);
    },
    list: async (call, { after, countMax }) => {
      if (after?.startsWith(machinesMark) === true) {
        const page = await parts.list(call, { after: after.slice(machinesMark.length), countMax });
        return { items: page.items, next: page.next === undefined ? undefined : `${machinesMark}${page.next}` };
      }
      const wanted = { under: call.id.text, isDeep: true, type, countMax };
      const rows = await resources.list(after === undefined ? wanted : { ...wanted, afterKey: after });
      const items = await Promise.all(rows.map(show));
      if (rows.length === countMax) return { items, next: rows.at(-1)?.id.key };
      const page = await parts.list(call, { after: undefined, countMax });
      return { items: [...items, ...page.items], next: page.next === undefined ? undefined : `${machinesMark}${page.next}` };
    },
  };
}

/** Those of private endpoints and those that clients made are rows; those of landed machines are what the machines have. */
function interfaceResources(front: ReplicationFront): readonly ResourceType[] {
  const { resources } = front.services;
  const source = withRows(front, interfaceType, {
    parts: partSource(front, async (seen) => await showInterfaces(resources, seen)),
    show: async (row) => presentResource(row, interfaceType, await showInterfaceRow(front.services, row)),
  });
  const fixed = (call: ArmCall): never => {
    throw new Fault("OperationNotSupported", `could not change the interface ${call.id.name}: the hub makes and removes interfaces`, {
      evidence: { resourceId: call.id.text },
      action: "create or delete the private endpoint or the landed machine that it belongs to",
    });
  };
  const resource = defineResource({
    type: interfaceType,
    within: "resourceGroup",
    properties: anything,
    source,
    canPatch: true,
    inputs: { put: interfaceInput },
    onPut: async (call, desired) => {
      const row = await resources.find(call.id);
      if (row === undefined ? (await findMachine(front, call.id)) !== undefined : !isMade(row)) return fixed(call);
      const properties = parseInput(interfaceInput, desired.properties, "the interface's properties", "properties");
      return await putInterface(front.services, call, { ...desired, properties });
    },
    // Tags alone, and of those interfaces that are rows: a landed machine's are made anew at each look.
    onPatch: async (call, { envelope }, patch) => {
      const others = Object.keys(envelope).filter((name) => name !== "tags");
      if (Object.keys(patch).length > 0 || others.length > 0) return fixed(call);
      const changed = await resources.update(call.id, (row) => ({ envelope: { ...row.envelope, tags: envelope["tags"] ?? {} } }));
      return changed === undefined ? fixed(call) : { kind: "answered", body: (await source.get(call)) ?? {} };
    },
    onDelete: async (call) => (isMade(await resources.find(call.id)) ? await deleteInterface(front.services, call) : fixed(call)),
  });
  return [resource, configurationResource(source)];
}

const configuredShape = z.looseObject({ ipConfigurations: z.array(z.looseObject({ name: z.string() })).default([]) });

/** The addresses of an interface, one by one. */
function configurationResource(source: ResourceSource): ResourceType {
  const type = `${interfaceType}/ipConfigurations`;
  const listOf = async (call: ArmCall): Promise<readonly JsonObject[]> => {
    const shown = await source.get(call);
    return shown === undefined ? [] : configuredShape.parse(shown["properties"]).ipConfigurations.map((each) => ({ ...each, type }));
  };
  return defineResource({
    ...readOnly,
    type,
    source: {
      get: async (call) => {
        const all = await listOf({ ...call, id: parseResourceId(call.id.parentText) });
        return all.find(({ name }) => String(name).toLowerCase() === call.id.name.toLowerCase());
      },
      list: async (call) => ({ items: await listOf(call), next: undefined }),
    },
  });
}

function partSource(front: ReplicationFront, show: (seen: SeenMachine) => Promise<readonly JsonObject[]>): ResourceSource {
  const { resources } = front.services;
  return {
    get: async ({ id }) => {
      const machine = await findMachine(front, id);
      const parts = machine === undefined ? [] : await show(machine);
      return parts.find((part) => String(part["name"]).toLowerCase() === id.name.toLowerCase());
    },
    list: async ({ id }, { after, countMax }) => {
      const wanted = { under: id.text, isDeep: true, type: machineType, countMax };
      const rows = await resources.list(after === undefined ? wanted : { ...wanted, afterKey: after });
      const items: JsonObject[] = [];
      for (const row of rows) items.push(...(await show(await seeMachine(front, row))));
      return { items, next: rows.length === countMax ? rows.at(-1)?.id.key : undefined };
    },
  };
}

async function findMachine(front: ReplicationFront, part: ResourceId): Promise<SeenMachine | undefined> {
  const id = machineIdOf(part, machineType);
  const { resources, database } = front.services;
  const byName = id === undefined ? undefined : await resources.find(id);
  const chosen = byName === undefined ? await findMachineWithPart(database.db, part) : undefined;
  const resource = chosen === undefined ? byName : await resources.find(chosen);
  return resource === undefined ? undefined : await seeMachine(front, resource);
}

function machinesAt(front: ReplicationFront): ResourceSource["list"] {
  return async ({ id }, { after, countMax }) => {
    const wanted = { under: `/subscriptions/${id.subscriptionId}`, isDeep: true, type: machineType, countMax };
    const rows = await front.services.resources.list(after === undefined ? wanted : { ...wanted, afterKey: after });
    const here = rows.filter((row) => toRegion(row.location ?? "") === toRegion(id.name));
    const items = await Promise.all(here.map(async (row) => presentResource(row, machineType, showMachine(await seeMachine(front, row)))));
    return { items, next: rows.length === countMax ? rows.at(-1)?.id.key : undefined };
  };
}

/** "Japan East" and "japaneast" are one region. */
function toRegion(location: string): string {
  return location.toLowerCase().replace(/[^a-z0-9]/g, "");
}
