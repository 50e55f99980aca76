// Calls that switch the process server: which machines go where, everything checked that can be known before one is touched.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import type { Inventory } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { ActionOutcome, ArmCall } from "../api/resource-type.ts";
import type { Appliance } from "../db/appliances.ts";
import { lockKey } from "../db/locks.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import { requireAccount } from "./enable-protection.ts";
import { requireKnownOrder } from "./give-order.ts";
import { requireReplicating } from "./item-operations.ts";
import { jobTarget, machineOf } from "./item-start.ts";
import { parseItem, patchItem, readItem, type Item } from "./item.ts";
import { applianceOf, containerName, itemType, vaultOf } from "./names.ts";
import { agentPolicyOf } from "./policy.ts";
import { isSilent } from "./site-appliances.ts";
import { switchKind, type SwitchedMachine, type SwitchParameters } from "./switch-process-server.ts";
import type { ReplicationFront } from "./world.ts";

export const reassociateBody = z.strictObject({
  properties: z.strictObject({
    containerName: z.string().max(80).optional(),
    sourceProcessServerId: z.string().max(64).optional(),
    targetProcessServerId: z.string().min(1).max(64),
    /** Names or ids of protected items, or ids of their machines. */
    vmsToMigrate: z.array(z.string().max(1000)).max(1000).optional(),
    updateType: z
      .string()
      .toLowerCase()
      .pipe(z.enum(["systemlevel", "serverlevel"]))
      .optional(),
  }),
});

/** The documented input is that of the newer provider; ours may be given in the same words. */
export const updateApplianceBody = z.strictObject({
  properties: z.strictObject({
    targetApplianceId: z.string().min(1).max(1000),
    providerSpecificDetails: z
      .strictObject({ instanceType: z.enum(["InMageRcm", "InMageAzureV2"]), runAsAccountId: z.string().max(64).optional() })
      .optional(),
  }),
});

const machinesMax = 200;
const pageCountMax = 1000;

interface Chosen {
  readonly id: ResourceId;
  readonly item: Item;
}

/** SystemLevel: every machine of the process server; ServerLevel: those that are named. */
export async function beginReassociation(
  front: ReplicationFront,
  call: ArmCall,
  body: z.infer<typeof reassociateBody>["properties"],
  show: () => Promise<JsonObject | undefined>,
): Promise<ActionOutcome> {
  const fabric = applianceOf(call.id);
  const { containerName: container, vmsToMigrate = [], targetProcessServerId } = body;
  if (container !== undefined && container.toLowerCase() !== containerName(fabric))
    throw new Fault("InputInvalid", `could not switch the process server: the fabric has no container ${container}`, {
      evidence: { containers: [containerName(fabric)] },
    });
  const source = await requireAppliance(front, call.id, body.sourceProcessServerId ?? fabric, "source");
  const all = (await itemsAt(front, call.id)).filter(({ item }) => item.applianceId === source.applianceId);
  const isNamed = body.updateType === "serverlevel" || (body.updateType === undefined && vmsToMigrate.length > 0);
  const chosen = isNamed
    ? vmsToMigrate.map((name) => requireNamed(all, name))
    : all.filter(({ item }) => item.protectionState === "Protected");
  const answer = (await show()) ?? {};
  return await begin(front, call, { targetId: targetProcessServerId, source, chosen, targetName: call.id.name, answer });
}

export async function beginApplianceUpdate(
  front: ReplicationFront,
  call: ArmCall,
  body: z.infer<typeof updateApplianceBody>["properties"],
  resource: Resource,
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  const source = await requireAppliance(front, call.id, item.applianceId, "source");
  const { targetApplianceId, providerSpecificDetails: details } = body;
  const targetId = targetApplianceId.split("/").at(-1) ?? "";
  const account = details?.runAsAccountId === undefined ? {} : { runAsAccountId: details.runAsAccountId };
  return await begin(front, call, { targetId, source, chosen: [{ id: resource.id, item }], targetName: item.machineName, ...account });
}

async function begin(
  front: ReplicationFront,
  { id, caller }: ArmCall,
  wish: {
    readonly targetId: string;
    readonly source: Appliance;
    readonly chosen: readonly Chosen[];
    readonly targetName: string;
    readonly runAsAccountId?: string;
    readonly answer?: JsonObject;
  },
): Promise<ActionOutcome> {
  const { services, engine } = front;
  const { source, chosen, answer } = wish;
  const target = await requireAppliance(front, id, wish.targetId, "target");
  requireTarget(services, source, target);
  await requireKnownOrder(services, target.applianceId, "adopt");
  if (chosen.length === 0 || chosen.length > machinesMax)
    throw new Fault("InputInvalid", `could not switch the process server: ${chosen.length} machines are to go, not 1 to ${machinesMax}`, {
      evidence: { machines: chosen.length, machinesMax },
      action: "name the machines that shall go (vmsToMigrate), at most this many in one call",
    });
  const accounts = {
    source: await services.appliances.inventory(source.applianceId),
    target: await services.appliances.inventory(target.applianceId),
  };
  const machines: SwitchedMachine[] = [];
  for (const { id: itemId, item } of chosen) {
    requireReplicating(item, "switch the process server of");
    requireShown(accounts.target, item, target);
    const runAsAccountId = wish.runAsAccountId ?? sameAccount(accounts, item, target);
    requireAccount(accounts.target, runAsAccountId);
    const policy = await agentPolicyOf(services, parseResourceId(`${vaultOf(id).text}/replicationPolicies/${item.policyName}`), item.group);
    const address = item.address === undefined ? {} : { address: item.address };
    const { machineId } = machineOf(item);
    machines.push({ itemId: itemId.text, machineId, infrastructureId: item.infrastructureId, runAsAccountId, policy, ...address });
  }
  const parameters: SwitchParameters = {
    sourceId: source.applianceId,
    targetId: target.applianceId,
    machines,
    ...(answer === undefined ? {} : { answer }),
  };
  const startTime = toTimestamp(services.clock.nowMs());
  const operationId = await services.database.db.transaction().execute(async (db) => {
    for (const each of chosen.toSorted((left, right) => (left.id.key < right.id.key ? -1 : 1))) {
      await lockKey(db, `item:${each.id.key}`);
      requireReplicating(await readItem(db, each.id), "switch the process server of");
    }
    const jobId = await engine.submit({ kind: switchKind, ...jobTarget(id, wish.targetName, caller.name), parameters }, db);
    for (const each of chosen)
      await patchItem(db, each.id, { busyWith: switchKind, scenario: { scenarioName: switchKind, jobId, startTime } });
    return jobId;
  });
  return { kind: "accepted", operationId };
}

async function requireAppliance(
  { services }: ReplicationFront,
  id: ResourceId,
  name: string,
  role: "source" | "target",
): Promise<Appliance> {
  const all = await services.appliances.inVault(vaultOf(id).key);
  const found = all.find(({ applianceId }) => applianceId === name.toLowerCase());
  if (found !== undefined) return found;
  throw new Fault("InputInvalid", `could not switch the process server: the ${role} ${name} is not an appliance of this vault`, {
    evidence: { [role]: name, appliances: all.map(({ applianceId }) => applianceId) },
    action: "name the process server by its id, as the fabrics of the vault show it",
  });
}

/** Documented: a process server in critical health cannot be chosen. */
function requireTarget(services: ReplicationFront["services"], source: Appliance, target: Appliance): void {
  if (source.applianceId === target.applianceId)
    throw new Fault("InputInvalid", "could not switch the process server: source and target are the same", {
      evidence: { applianceId: target.applianceId },
    });
  if (!isSilent(services, target)) return;
  throw new Fault("ApplianceSilent", `could not switch to the process server ${target.name}: it has not been heard of`, {
    evidence: { applianceId: target.applianceId, lastSeenAt: target.lastSeenAt },
  });
}

function requireShown(inventory: Inventory | undefined, item: Item, target: Appliance): void {
  if (inventory?.machines.some(({ infrastructureId }) => infrastructureId === item.infrastructureId) === true) return;
  throw new Fault("MachineNotDiscovered", `could not switch the process server of ${item.machineName}: ${target.name} does not see it`, {
    evidence: { infrastructureId: item.infrastructureId, applianceId: target.applianceId },
    action: "add the machine's vCenter to the target appliance (PUT replicationvCenters), then call again",
  });
}

/** Accounts are each appliance's own; the one of the same name stands for the one that installed the agent. */
function sameAccount(
  { source, target }: { readonly source: Inventory | undefined; readonly target: Inventory | undefined },
  item: Item,
  appliance: Appliance,
): string {
  const name = source?.runAsAccounts.find(({ accountId }) => accountId === item.runAsAccountId)?.name;
  const same = target?.runAsAccounts.find((account) => account.kind === "linux" && account.name === name);
  if (same !== undefined) return same.accountId;
  throw new Fault(
    "InputInvalid",
    `could not switch the process server of ${item.machineName}: ${appliance.name} has no account ${name ?? "for it"}`,
    {
      evidence: { runAsAccountId: item.runAsAccountId, accountName: name ?? "unknown" },
      action: "add a credential of that name on the target appliance, then call again",
    },
  );
}

async function itemsAt({ services }: ReplicationFront, fabric: ResourceId): Promise<readonly Chosen[]> {
  const found: Chosen[] = [];
  for (let afterKey = ""; ;) {
    const page = await services.resources.list({ under: fabric.text, isDeep: true, type: itemType, afterKey, countMax: pageCountMax });
    found.push(...page.map(({ id, properties }) => ({ id, item: parseItem(properties) })));
    const last = page.at(-1);
    if (last === undefined || page.length < pageCountMax) return found;
    afterKey = last.id.key;
  }
}

function requireNamed(items: readonly Chosen[], name: string): Chosen {
  const wanted = (name.split("/").at(-1) ?? "").toLowerCase();
  const found = items.find(({ id, item }) => [id.name.toLowerCase(), item.machineId, item.infrastructureId].includes(wanted));
  if (found !== undefined) return found;
  throw new Fault("InputInvalid", `could not switch the process server: ${name} is not a protected machine of the source`, {
    evidence: { vm: name, known: items.slice(0, 20).map(({ id }) => id.name) },
    action: "name protected items of this fabric that the source process server serves",
  });
}
