// vCenters of an appliance: added, changed and removed by its orders, read from its inventory. Credentials are on the appliance alone.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { Inventory } from "../../contract/appliance-protocol.ts";
import { parseInput } from "../api/arm-errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { defineResource, type ArmCall, type DeleteOutcome, type ResourceType, type WriteOutcome } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import { requireKnownOrder } from "./give-order.ts";
import { jobTarget } from "./item-start.ts";
import { applianceOf, containerId, itemType, vaultOf, vcenterType } from "./names.ts";
import { findVcenter, vcentersAt, type Vcenter } from "./vcenter.ts";
import { putVcenterKinds, type PutVcenter } from "./vcenter-jobs.ts";
import type { ReplicationFront } from "./world.ts";

const wishShape = z.strictObject({
  friendlyName: z.string().min(1).max(63).optional(),
  ipAddress: z.string().min(1).max(253).optional(),
  processServerId: z.string().max(64).optional(),
  port: z
    .string()
    .regex(/^\d{1,5}$/, "a port in digits")
    .refine((text) => Number(text) >= 1 && Number(text) <= 65_535, "a port from 1 to 65535")
    .optional(),
  runAsAccountId: z.string().min(1).max(64).optional(),
  /** Ours: by what the certificate is trusted, where the appliance does not know its authority. Never answered. */
  watariThumbprint: z
    .string()
    .regex(/^([0-9a-f]{2}:?){31}[0-9a-f]{2}$/i, "SHA-256 of the certificate, 64 hexadecimal digits, colons allowed")
    .optional(),
  watariAuthorityPem: z.string().max(16_000).optional(),
  // What clients send back as they read it: the appliance's to say.
  ...Object.fromEntries(
    (["internalId", "lastHeartbeat", "discoveryStatus", "infrastructureId", "fabricArmResourceName", "healthErrors"] as const).map(
      (name) => [name, z.unknown().optional()] as const,
    ),
  ),
});
type Wish = z.infer<typeof wishShape>;

const defaultPort = 443;
const namesMax = 20;

export function vcenterResource(front: ReplicationFront): ResourceType {
  const { services } = front;
  return defineResource({
    type: vcenterType,
    within: "parent",
    isListedUnderAncestors: true,
    canPatch: true,
    longWrites: ["PUT", "PATCH", "DELETE"],
    properties: z.looseObject({}),
    source: {
      get: async ({ id }) => await findVcenter(services, id),
      list: async ({ id }) => ({ items: await vcentersAt(services, id), next: undefined }),
    },
    onPut: async (call, { properties }) => await put(front, call, parseInput(wishShape, properties, "the vCenter")),
    onPatch: async (call, _desired, patch) => await put(front, call, parseInput(wishShape, patch, "the change of the vCenter")),
    onDelete: async (call) => await remove(front, call),
  });
}

async function put(front: ReplicationFront, call: ArmCall, wish: Wish): Promise<WriteOutcome> {
  const { services, engine } = front;
  const { id, caller } = call;
  const applianceId = applianceOf(id);
  await requireKnownOrder(services, applianceId, "putVcenter");
  const inventory = await services.appliances.inventory(applianceId);
  const present = inventory?.vcenters.find(({ vcenterId }) => vcenterId.toLowerCase() === id.name.toLowerCase());
  if (wish.processServerId !== undefined && wish.processServerId.toLowerCase() !== applianceId)
    throw new Fault(
      "InputInvalid",
      `could not keep the vCenter ${id.name}: the process server ${wish.processServerId} is not of this fabric`,
      {
        evidence: { processServerId: wish.processServerId, fabric: applianceId },
        action: "name the fabric's own process server, or none",
      },
    );
  const parameters = { resourceId: id.text, ...merge(id, wish, present) };
  requireAccount(inventory, parameters.runAsAccountId);
  const kind = putVcenterKinds[present === undefined ? "add" : "change"];
  const operationId = await engine.submit({ kind, ...jobTarget(id, parameters.name, caller.name), parameters });
  return { kind: "accepted", operationId };
}

function merge(id: ResourceId, wish: Wish, present: Vcenter | undefined): Omit<PutVcenter, "resourceId"> {
  const host = wish.ipAddress ?? present?.host;
  const runAsAccountId = wish.runAsAccountId ?? present?.runAsAccountId;
  if (host === undefined || runAsAccountId === undefined)
    throw new Fault(
      "InputInvalid",
      `could not add the vCenter ${id.name}: ${host === undefined ? "ipAddress" : "runAsAccountId"} is missing`,
      {
        action: "give ipAddress, port and the runAsAccountId of an account of kind vcenter that the appliance has",
      },
    );
  const { watariThumbprint: sha256, watariAuthorityPem: caPem } = wish;
  if (sha256 !== undefined && caPem !== undefined)
    throw new Fault("InputInvalid", `could not add the vCenter ${id.name}: it is trusted by a thumbprint or by an authority, not by both`);
  return {
    vcenterId: present?.vcenterId ?? id.name,
    name: wish.friendlyName ?? present?.name ?? id.name,
    host,
    port: wish.port === undefined ? (present?.port ?? defaultPort) : Number(wish.port),
    runAsAccountId,
    ...(sha256 === undefined ? {} : { trust: { kind: "thumbprint" as const, sha256 } }),
    ...(caPem === undefined ? {} : { trust: { kind: "authority" as const, caPem } }),
  };
}

function requireAccount(inventory: Inventory | undefined, runAsAccountId: string): void {
  const accounts = (inventory?.runAsAccounts ?? []).filter(({ kind }) => kind === "vcenter").map(({ accountId }) => accountId);
  if (accounts.includes(runAsAccountId)) return;
  throw new Fault("InputInvalid", `could not find the vCenter account ${runAsAccountId} on the appliance`, {
    evidence: { runAsAccountId, vcenterAccounts: accounts },
    action: "add the credential on the appliance (watari appliance credential add --kind vcenter), then call again with its account id",
  });
}

async function remove(front: ReplicationFront, { id, caller }: ArmCall): Promise<DeleteOutcome> {
  const { services, engine } = front;
  const applianceId = applianceOf(id);
  await requireKnownOrder(services, applianceId, "removeVcenter");
  const inventory = await services.appliances.inventory(applianceId);
  const vcenter = inventory?.vcenters.find(({ vcenterId }) => vcenterId.toLowerCase() === id.name.toLowerCase());
  if (vcenter === undefined) return { kind: "done" }; // It went meanwhile.
  const shown = new Set(
    (inventory?.machines ?? []).flatMap((each) => (each.vcenterId === vcenter.vcenterId ? [each.infrastructureId] : [])),
  );
  const container = containerId(vaultOf(id), applianceId);
  const held = await heldBy(front, container, shown);
  if (held.length > 0)
    throw new Fault("StateConflict", `could not remove the vCenter ${vcenter.name}: machines that it shows are protected`, {
      evidence: { protectedItems: held },
      causes: ["a migration powers the source off through its vCenter"],
      action: "complete or stop the replication of the machines that are named first",
      retry: "never",
    });
  const parameters = { resourceId: id.text, vcenterId: vcenter.vcenterId };
  const operationId = await engine.submit({ kind: "RemoveVCenter", ...jobTarget(id, vcenter.name, caller.name), parameters });
  return { kind: "accepted", operationId };
}

/** Protected items of machines that are among those shown, the first of them. */
async function heldBy({ services }: ReplicationFront, container: ResourceId, shown: ReadonlySet<string>): Promise<readonly string[]> {
  const held: string[] = [];
  for (let afterKey = ""; held.length < namesMax;) {
    const page = await services.resources.list({ under: container.text, type: itemType, afterKey, countMax: 1000 });
    held.push(...page.filter(({ properties }) => isAmong(shown, properties)).map(({ id }) => id.text));
    const last = page.at(-1);
    if (last === undefined || page.length < 1000) break;
    afterKey = last.id.key;
  }
  return held.slice(0, namesMax);
}

function isAmong(shown: ReadonlySet<string>, { infrastructureId, protectionState }: JsonObject): boolean {
  return typeof infrastructureId === "string" && shown.has(infrastructureId) && protectionState !== "CommitFailoverCompleted";
}
