// Job EnableProtection: checks, agent pushed, initial copy, first recovery point; a failure takes the agent off again.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { DiscoveredMachine, Inventory } from "../../contract/appliance-protocol.ts";
import { parseMachineId, type ApplianceId } from "../../contract/ids.ts";
import { replicationPolicyShape, type MachineFacts, type ReplicationPolicy } from "../../contract/agent-control.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type Queryable, type StepContext } from "../jobs/job.ts";
import { pointTopic } from "../db/points.ts";
import { presentAfter } from "./present-item.ts";
import { giveOrder, looksApart, settleOrder } from "./give-order.ts";
import { faultsOf, findItemsOf, patchItem } from "./item.ts";
import { applianceOf, vaultOf } from "./names.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({
  itemId: z.string(),
  infrastructureId: z.string(),
  runAsAccountId: z.string(),
  address: z.string().optional(),
  policy: replicationPolicyShape,
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  readonly smbiosUuid?: string;
  readonly machineId?: string;
  readonly facts?: MachineFacts;
  readonly firstPointId?: string;
}
type Context = StepContext<Parameters, State>;

export function defineEnableProtection(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: "EnableProtection",
    title: "enable replication",
    parameters: parametersShape,
    steps: [
      {
        name: "checks",
        title: "check the prerequisites",
        run: async (context) => await check(world, context),
        undo: "the checks only read",
      },
      {
        name: "install",
        title: "install the agent",
        weight: 3,
        run: async (context) => await install(world, context),
        undo: async (context) => await uninstall(world, context),
      },
      {
        name: "initialReplication",
        title: "copy the disks until the first recovery point",
        weight: 12,
        run: async (context) => await waitForFirstPoint(world, context),
        undo: "ending the replication, which the step before takes back, also ends the copy and removes its points",
      },
    ],
    settle: async (db, { parameters: { itemId }, state, outcome }) => {
      await patchItem(db, itemId, {
        protectionState: outcome.kind === "succeeded" ? "Protected" : "EnablingFailed",
        faults: faultsOf(outcome),
        // Nothing of it is on the machine any more: the same call may begin anew.
        ...(outcome.kind === "succeeded" || outcome.undoFaults.length > 0 ? {} : { machineId: undefined, facts: undefined }),
        ...(outcome.kind === "succeeded" ? { facts: stored(state, "facts") } : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

interface EnableWish {
  readonly itemId: string;
  readonly infrastructureId: string;
  readonly runAsAccountId: string;
}

/** What can be known before a machine is touched. Also called before the item is stored, so that a wrong call fails at once. */
export async function checkMachine(world: Replication, wish: EnableWish): Promise<DiscoveredMachine> {
  const id = parseResourceId(wish.itemId);
  const applianceId = applianceOf(id);
  await world.services.vaults.open(vaultOf(id).text);
  const inventory = await world.services.appliances.inventory(applianceId);
  const machine = requireDiscovered(inventory, wish.infrastructureId, applianceId);
  requireAccount(inventory, wish.runAsAccountId);
  return machine;
}

/** Refuses a machine that another item protects. Certain only under the machine's locks, in their transaction. */
export async function refuseProtected(db: Queryable, itemId: string, machine: DiscoveredMachine): Promise<void> {
  const others = (await findItemsOf(db, machine)).filter((item) => item.id.toLowerCase() !== itemId.toLowerCase());
  const same = others.find((item) => item.infrastructureId === machine.infrastructureId);
  if (same !== undefined)
    throw new Fault("AlreadyProtected", `could not enable replication of ${machine.name}: it is protected already`, {
      evidence: { protectedItemId: same.id },
    });
  const twin = others[0];
  if (twin !== undefined)
    throw new Fault("MachineCloned", `could not enable replication of ${machine.name}: it has the BIOS UUID of ${twin.machineName}`, {
      evidence: { smbiosUuid: machine.smbiosUuid, protectedItemId: twin.id },
    });
}

function requireDiscovered(inventory: Inventory | undefined, infrastructureId: string, applianceId: ApplianceId): DiscoveredMachine {
  const machine = inventory?.machines.find((each) => each.infrastructureId === infrastructureId);
  if (machine === undefined)
    throw new Fault("MachineNotDiscovered", `could not find the machine ${infrastructureId} in the inventory of the appliance`, {
      evidence: { infrastructureId, applianceId, machines: inventory?.machines.length ?? 0 },
    });
  if (machine.powerState !== "poweredOn")
    throw new Fault("StateConflict", `could not enable replication of ${machine.name}: it is ${machine.powerState}`, {
      evidence: { powerState: machine.powerState },
      action: "power the machine on, run a discovery, then call again",
    });
  return machine;
}

export function requireAccount(inventory: Inventory | undefined, runAsAccountId: string): void {
  const accounts = inventory?.runAsAccounts ?? [];
  if (accounts.some((account) => account.accountId === runAsAccountId && account.kind === "linux")) return;
  throw new Fault("InputInvalid", `could not find the guest account ${runAsAccountId} on the appliance`, {
    evidence: { runAsAccountId, guestAccounts: accounts.filter((each) => each.kind === "linux").map((each) => each.accountId) },
    action: "add the credential on the appliance, then call again with its account id",
  });
}

async function check(world: Replication, { parameters }: Context): Promise<State> {
  const machine = await checkMachine(world, parameters);
  await refuseProtected(world.services.database.db, parameters.itemId, machine);
  return { smbiosUuid: machine.smbiosUuid };
}

function orderOf(
  world: Replication,
  { parameters }: Context,
): { readonly applianceId: string; readonly label: string; readonly pollMs: number } {
  return { applianceId: applianceOf(parseResourceId(parameters.itemId)), label: "protect", pollMs: world.limits.pollMs };
}

async function install(world: Replication, context: Context): Promise<State> {
  const { infrastructureId, runAsAccountId, address, itemId } = context.parameters;
  const policy: ReplicationPolicy = context.parameters.policy;
  const result = await giveOrder(world.services, context, {
    ...orderOf(world, context),
    draft: { kind: "protect", infrastructureId, runAsAccountId, policy, ...(address === undefined ? {} : { address }) },
    waitSecondsMax: world.limits.installSeconds,
  });
  const { machineId, facts } = result;
  if (machineId === undefined || facts === undefined)
    throw new Fault("Internal", "the appliance answered the order protect without the machine's id and facts");
  await context.write(
    async (db) =>
      await patchItem(db, itemId, { machineId, facts, protectionState: "InitialReplicationInProgress", smbiosUuid: facts.smbiosUuid }),
  );
  return { machineId, facts };
}

/** Also when the push was cut: the order is withdrawn, or its end awaited, and what it installed is removed. */
async function uninstall(world: Replication, context: Context): Promise<void> {
  const { services, limits } = world;
  const given = await settleOrder(services, context, { ...orderOf(world, context), waitSecondsMax: limits.installSeconds });
  // A push that failed has removed what it had put on the machine.
  if (given === "never given" || given.outcome === "failed" || given.machineId === undefined) return;
  const { machineId } = given;
  await giveOrder(services, context, {
    ...orderOf(world, context),
    label: "unprotect",
    draft: { kind: "unprotect", machineId, removeAgent: true, removePoints: true },
    waitSecondsMax: limits.shortOrderSeconds,
    isRepeated: true,
  });
  const vault = vaultOf(parseResourceId(context.parameters.itemId));
  await services.points.removeMachine(vault.key, machineId);
  await services.appliances.removeMachine(vault.key, machineId);
}

async function waitForFirstPoint(world: Replication, context: Context): Promise<State> {
  const { services, limits } = world;
  const machineId = parseMachineId(stored(context.state, "machineId"));
  const vault = vaultOf(parseResourceId(context.parameters.itemId));
  const endsAtMs = services.clock.monotonicMs() + limits.initialReplicationSeconds * 1000;
  let told = "";
  let bell = new AbortController();
  using _subscription = services.database.notifications.subscribe(pointTopic(vault.key, machineId), () => bell.abort());
  for (;;) {
    context.signal.throwIfAborted();
    bell = new AbortController();
    const [point] = await services.points.list(vault.key, machineId, { countMax: 1 });
    if (point !== undefined) return { firstPointId: point.pointId };
    const state = (await services.appliances.machine(vault.key, machineId))?.report.state;
    const fault = state?.fault;
    // The agent goes on trying; the repair happens on the machine or the line. The job tells it and waits.
    if (fault !== undefined && fault.message !== told) {
      told = fault.message;
      await context.log(`the agent reports ${fault.id}: ${fault.message}`, { action: fault.action });
      await context.write(async (db) => await patchItem(db, context.parameters.itemId, { faults: [fault] }));
    }
    const disks = state?.disks ?? [];
    const sizeBytes = disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
    const copiedBytes = disks.reduce((sum, disk) => sum + disk.copiedBytes, 0);
    if (sizeBytes > 0) await context.progress((100 * copiedBytes) / sizeBytes, `${copiedBytes} of ${sizeBytes} bytes copied`);
    if (services.clock.monotonicMs() > endsAtMs)
      throw new Fault("ReplicationNotReady", "the initial replication did not end in time", { evidence: { copiedBytes, sizeBytes } });
    // The point rings. In between only progress and faults are looked for, which may take days.
    await services.clock.sleep(limits.pollMs * looksApart, AbortSignal.any([context.signal, bell.signal])).catch(() => undefined); // Looked at above.
  }
}
