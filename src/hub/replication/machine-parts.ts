// What ARM clients ask for around landed machines: disks, network interfaces, sizes, and lists that are empty here.

import { availableParallelism, totalmem } from "node:os";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import {
  defineAction,
  defineResource,
  type ActionDefinition,
  type ArmCall,
  type ResourceSource,
  type ResourceType,
} from "../api/resource-type.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { presentResource, type JsonObject } from "../db/resources.ts";
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

const mebibyte = 2 ** 20;
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

/** The one size says what the host has; a machine keeps what its source had. */
function sizes(): readonly JsonObject[] {
  const largestMB = 2 ** 31 - 1;
  return [{ name: sizeName, ...hostSize(), osDiskSizeInMB: largestMB, resourceDiskSizeInMB: 0 }];
}

export function hostSize(): { readonly numberOfCores: number; readonly memoryInMB: number; readonly maxDataDiskCount: number } {
  return { numberOfCores: availableParallelism(), memoryInMB: Math.floor(totalmem() / mebibyte), maxDataDiskCount: 63 };
}

function diskResource(front: ReplicationFront): ResourceType {
  const fixed = (call: ArmCall, doing: string): never => {
    throw new Fault("OperationNotSupported", `could not ${doing} the disk ${call.id.name}: it belongs to a landed machine`, {
      evidence: { resourceId: call.id.text },
      action: "delete the machine to delete its disks; export a recovery point to get their contents",
    });
  };
  const refused = (doing: string): ActionDefinition =>
    defineAction({ isRefused: true, body: z.unknown(), run: async (call) => fixed(call, doing) });
  return defineResource({
    type: diskType,
    within: "resourceGroup",
    properties: anything,
    source: partSource(front, async (seen) => showDisks(seen)),
    onPut: async (call) => fixed(call, "save"),
    onDelete: async (call) => {
      throw new Fault("StateConflict", `could not delete the disk ${call.id.name}: it is attached to a landed machine`, {
        evidence: { resourceId: call.id.text },
        action: "delete the machine; its disks go with it",
        retry: "never",
      });
    },
    actions: { beginGetAccess: refused("open"), endGetAccess: refused("close") },
  });
}

/** Those of private endpoints are rows; those of landed machines are what the machines have. Rows come first in lists. */
function interfaceResources(front: ReplicationFront): readonly ResourceType[] {
  const { resources } = front.services;
  const parts = partSource(front, async (seen) => await showInterfaces(resources, seen));
  const machinesMark = "machines ";
  const source: ResourceSource = {
    get: async (call) => {
      const row = await resources.find(call.id);
      return row === undefined ? await parts.get(call) : presentResource(row, interfaceType);
    },
    list: async (call, { after, countMax }) => {
      if (after?.startsWith(machinesMark) === true) {
        const page = await parts.list(call, { after: after.slice(machinesMark.length), countMax });
        return { items: page.items, next: page.next === undefined ? undefined : `${machinesMark}${page.next}` };
      }
      const wanted = { under: call.id.text, isDeep: true, type: interfaceType, countMax };
      const rows = await resources.list(after === undefined ? wanted : { ...wanted, afterKey: after });
      const items = rows.map((row) => presentResource(row, interfaceType));
      if (rows.length === countMax) return { items, next: rows.at(-1)?.id.key };
      const page = await parts.list(call, { after: undefined, countMax });
      return { items: [...items, ...page.items], next: page.next === undefined ? undefined : `${machinesMark}${page.next}` };
    },
  };
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
    onPut: async (call) => fixed(call),
    // Tags alone, and of those interfaces that are rows: a landed machine's are made anew at each look.
    onPatch: async (call, { envelope }, patch) => {
      const others = Object.keys(envelope).filter((name) => name !== "tags");
      if (Object.keys(patch).length > 0 || others.length > 0) return fixed(call);
      const changed = await resources.update(call.id, (row) => ({ envelope: { ...row.envelope, tags: envelope["tags"] ?? {} } }));
      return changed === undefined ? fixed(call) : { kind: "answered", body: presentResource(changed, interfaceType) };
    },
    onDelete: async (call) => fixed(call),
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
