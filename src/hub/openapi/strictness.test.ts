// No body of a call is dropped in part: what an action or a write does not know at any depth is refused, or stored and answered.

import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import type { ResourceType } from "../api/resource-type.ts";
import { everyType } from "./every-type.ts";
import { storedAsSent } from "./stored-as-sent.ts";

const table = await everyType();

/** The hook compares every member with what is there, or refuses every write. */
const heldAgainstPresent: ReadonlySet<string> = new Set([
  "Microsoft.RecoveryServices/vaults/replicationFabrics",
  "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationRecoveryServicesProviders",
  "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers",
  "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationvCenters",
  "Microsoft.RecoveryServices/vaults/privateEndpointConnections",
  "Microsoft.Storage/storageAccounts/privateEndpointConnections",
  "Microsoft.Migrate/migrateProjects/privateEndpointConnections",
  "Microsoft.Storage/storageAccounts/blobServices/containers",
  "Microsoft.RecoveryServices/vaults/certificates",
  "Microsoft.Resources/subscriptions/tagNames",
  "Microsoft.Compute/virtualMachines",
  "Microsoft.Compute/disks",
  "Microsoft.Compute/availabilitySets",
  "Microsoft.Network/networkInterfaces",
]);

/** Where a schema lets a member through that it does not name: paths of loose, dropping or unknown parts. */
function openings(shape: z.ZodType, path = "", seen = new Set<z.ZodType>()): readonly string[] {
  if (seen.has(shape)) return [];
  seen.add(shape);
  const inner = (part: unknown, at: string): readonly string[] => (part instanceof z.ZodType ? openings(part, at, seen) : []);
  if (shape instanceof z.ZodObject) {
    const isClosed = shape.def.catchall instanceof z.ZodNever;
    const below = Object.entries(shape.shape).flatMap(([name, part]) => inner(part, `${path}.${name}`));
    return [...(isClosed ? [] : [path || "."]), ...below];
  }
  if (shape instanceof z.ZodUnknown || shape instanceof z.ZodAny) return [path || "."];
  if (shape instanceof z.ZodArray) return shape.def.checks?.length === 1 && isEmptyOnly(shape) ? [] : inner(shape.element, `${path}[]`);
  if (shape instanceof z.ZodRecord) return inner(shape.valueType, `${path}{}`);
  if (shape instanceof z.ZodUnion) return shape.options.flatMap((option) => inner(option, path));
  if (shape instanceof z.ZodPipe) return inner(shape.in, path);
  const { innerType } = shape.def as { readonly innerType?: unknown }; // Of wrappers: optional, nullable, default, readonly.
  return inner(innerType, path);
}

/** z.array(…).max(0): only nothing can be sent. */
function isEmptyOnly(shape: z.ZodArray): boolean {
  return !shape.safeParse([undefined]).success && shape.safeParse([]).success;
}

function bodiesOf(type: ResourceType): readonly (readonly [string, z.ZodType])[] {
  const actions = [...Object.entries(type.actions ?? {}), ...Object.entries(type.collectionActions ?? {})];
  return [
    ...actions.flatMap(([name, action]) =>
      "isRefused" in action && action.isRefused ? [] : [[`${type.type}/${name}`, action.body] as const],
    ),
    ...(type.onCall === undefined ? [] : [[`${type.type} (call)`, type.onCall.body] as const]),
    ...(type.inputs?.put === undefined ? [] : [[`${type.type} (PUT)`, type.inputs.put] as const]),
    ...(type.inputs?.patch === undefined ? [] : [[`${type.type} (PATCH)`, type.inputs.patch] as const]),
  ];
}

test("bodies of actions and of writes that store something else are closed at every level", () => {
  const open = table.types.flatMap(bodiesOf).flatMap(([name, body]) => openings(body).map((path) => `${name} ${path}`));
  assert.deepEqual(open, [], "use z.strictObject, noBody, or isRefused for an action that is refused whatever is sent");
});

test("every type that can be written says what becomes of members that it does not know", () => {
  const open = table.types.filter((type) => {
    const canWrite = type.absent === undefined && type.onPut !== "refuse" && (type.source === undefined || type.onPut !== undefined);
    const isDecided = type.inputs?.put !== undefined || storedAsSent.has(type.type) || heldAgainstPresent.has(type.type);
    return canWrite && !isDecided && openings(type.properties).length > 0;
  });
  assert.deepEqual(
    open.map(({ type }) => type),
    [],
  );
});
