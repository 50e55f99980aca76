// Jobs that are one order to an appliance, whose answer is the job's: limits of its lines, a machine's profile, a check of its ways.

import { z } from "zod";
import { profileSecondsMax, profileSecondsMin } from "../../contract/churn-profile.ts";
import { limitPlaceShape, limitsChangeShape, limitWindowShape } from "../../contract/line-limits.ts";
import { asFault, toReport } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import { machineIdShape } from "../../contract/shapes.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { parseInput } from "../api/arm-errors.ts";
import { defineAction, type ActionDefinition, type ArmCall, type ActionOutcome } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import { defineJob, type JobKind, type StepContext } from "../jobs/job.ts";
import { giveOrder, requireKnownOrder, type DoneResult, type OrderDraft } from "./give-order.ts";
import { jobTarget } from "./item-start.ts";
import { applianceOf, vaultOf } from "./names.ts";
import type { Replication, ReplicationFront } from "./world.ts";

export const applianceJobKinds = { limits: "ChangeLineLimits", profile: "ProfileMachine", check: "CheckNetwork" } as const;

const headShape = { applianceId: z.string() };
const limitsShape = z.object({ ...headShape, change: limitsChangeShape });
const profileShape = z.object({ ...headShape, machine: z.string(), seconds: z.number() });
const checkShape = z.object({ ...headShape, vaultId: z.string(), machineIds: z.array(machineIdShape).default([]) });
interface State {
  readonly answer?: JsonObject;
}

export function defineChangeLimits(world: Replication): JobKind {
  return defineJob<z.infer<typeof limitsShape>, State>({
    kind: applianceJobKinds.limits,
    title: "limit the lines of an appliance",
    parameters: limitsShape,
    steps: [
      {
        name: "change",
        title: "let the appliance change its limits",
        run: async (context) => {
          const { change, applianceId } = context.parameters;
          return { answer: toAnswer(await order(world, context, applianceId, { draft: { kind: "changeLimits", change } }), "limits") };
        },
        undo: "limits that were changed hold; another change sets others",
      },
    ],
    settle: async (_db, { state, outcome }) => (outcome.kind === "succeeded" ? state.answer : undefined),
    restart: async () => undefined,
  });
}

export function defineProfileMachine(world: Replication): JobKind {
  return defineJob<z.infer<typeof profileShape>, State>({
    kind: applianceJobKinds.profile,
    title: "measure what a machine writes",
    parameters: profileShape,
    steps: [
      {
        name: "measure",
        title: "let the machine's agent count for a while",
        run: async (context) => {
          const { machine, seconds, applianceId } = context.parameters;
          const wish = { draft: { kind: "profileMachine", machine, seconds } as const, moreSeconds: seconds };
          return { answer: toAnswer(await order(world, context, applianceId, wish), "profile") };
        },
        undo: "the agent ends its count by itself, and has sent nothing",
      },
    ],
    settle: async (_db, { state, outcome }) => (outcome.kind === "succeeded" ? state.answer : undefined),
    restart: async () => undefined,
  });
}

export function defineCheckNetwork(world: Replication): JobKind {
  return defineJob<z.infer<typeof checkShape>, State & { readonly hubChecks?: readonly NetworkCheck[] }>({
    kind: applianceJobKinds.check,
    title: "check the ways of an appliance",
    parameters: checkShape,
    steps: [
      {
        name: "rights",
        title: "look at the vault's rights and the hub's own way to its storage",
        run: async (context) => ({ hubChecks: await checkVault(world, context.parameters.vaultId) }),
        undo: "looking changes nothing",
      },
      {
        name: "ways",
        title: "let the appliance try every way, hop by hop",
        weight: 4,
        run: async (context) => {
          const { applianceId, machineIds } = context.parameters;
          const { checks = [] } = await order(world, context, applianceId, { draft: { kind: "checkNetwork" } });
          const agents = await Promise.all(machineIds.map(async (machineId) => await checkAgent(world, context, applianceId, machineId)));
          const all = [...(context.state.hubChecks ?? []), ...checks, ...agents.flat()];
          const failedCount = all.filter(({ verdict }) => verdict === "fail").length;
          for (const { id, answer, repair } of all.filter(({ verdict }) => verdict === "fail").slice(0, failuresLogged))
            await context.log(`${id}: ${answer}`, repair === undefined ? {} : { repair });
          return { answer: { passed: failedCount === 0, failedCount, checks: all } };
        },
        undo: "a check takes away what it wrote",
      },
    ],
    settle: async (_db, { state, outcome }) => (outcome.kind === "succeeded" ? state.answer : undefined),
    restart: async () => undefined,
  });
}

const failuresLogged = 50;

/** An agent that does not answer, or is too old to, is a finding and not the end of the check. */
async function checkAgent(
  world: Replication,
  context: StepContext<object, object>,
  applianceId: string,
  machineId: MachineId,
): Promise<readonly NetworkCheck[]> {
  const beganMs = world.services.clock.monotonicMs();
  try {
    const wish = { draft: { kind: "checkNetwork", machineId } as const, label: `checkNetwork/${machineId}` };
    const { checks = [] } = await order(world, context, applianceId, wish);
    return checks.map((check) => ({ ...check, id: `${machineId} ${check.id}` }));
  } catch (error) {
    context.signal.throwIfAborted();
    const fault = toReport(asFault(error, "ask an agent to check its ways"));
    const latencyMs = world.services.clock.monotonicMs() - beganMs;
    const tried = "ask the agent through its appliance to try its ways";
    const head = { id: `${machineId} agent/order`, role: "appliance", hop: "order", to: machineId, tried, latencyMs };
    return [{ ...head, answer: fault.message, verdict: "fail", fault, repair: fault.action.slice(0, 4000) }];
  }
}

/** What the hub itself needs of a vault: its rights on the storage account, and reading there. */
async function checkVault({ services, openReader }: Replication, vaultId: string): Promise<readonly NetworkCheck[]> {
  const { clock, vaults } = services;
  const results: NetworkCheck[] = [];
  const attempt = async (id: string, tried: string, task: () => Promise<string>): Promise<void> => {
    const beganMs = clock.monotonicMs();
    const head = { id: `vault/${id}`, role: "hub", hop: id, to: vaultId, tried };
    try {
      const answer = await task();
      results.push({ ...head, answer, latencyMs: clock.monotonicMs() - beganMs, verdict: "pass" });
    } catch (error) {
      const fault = toReport(asFault(error, tried));
      const found = { answer: fault.message, latencyMs: clock.monotonicMs() - beganMs, verdict: "fail", fault } as const;
      results.push({ ...head, ...found, ...(fault.action === "" ? {} : { repair: fault.action.slice(0, 4000) }) });
    }
  };
  await attempt("rights", "look whether the vault's identity may write to its storage account", async () => {
    const { storage } = await vaults.open(vaultId);
    return `it may write to ${storage.accountName}`;
  });
  await attempt("reading", "list recovery points through the storage account's private endpoint", async () => {
    const reader = await openReader(vaultId);
    for await (const { pointId } of reader.listPoints()) return `the recovery point ${pointId} was read`;
    return "there is no recovery point yet";
  });
  return results;
}

async function order(
  { services, limits }: Replication,
  context: StepContext<object, object>,
  applianceId: string,
  wish: { readonly draft: OrderDraft; readonly label?: string; readonly moreSeconds?: number },
): Promise<DoneResult> {
  const { draft, label = draft.kind, moreSeconds = 0 } = wish;
  const waitSecondsMax = limits.shortOrderSeconds + moreSeconds;
  return await giveOrder(services, context, { applianceId, draft, label, waitSecondsMax, pollMs: limits.pollMs });
}

function toAnswer(result: DoneResult, key: "limits" | "profile"): JsonObject {
  const found = result[key];
  if (found === undefined) throw new Error(`assertion failed: an appliance that carried the order out tells its ${key}`);
  return { ...found };
}

/** As the contract's change of limits, and nothing beside it; what it means together is checked there. */
const placeBody = limitPlaceShape.extend({ window: z.strictObject(limitWindowShape.shape).exactOptional() }).strict();
const limitsBody = z.strictObject({
  timeZone: limitsChangeShape.shape.timeZone,
  remove: z.array(placeBody).max(512).default([]),
  set: z
    .array(placeBody.extend({ bytesPerSecond: z.union([z.number(), z.literal("unlimited")]) }).strict())
    .max(512)
    .default([]),
});

const profileBody = z.strictObject({
  /** Host name, or id, of a machine whose agent is registered at the appliance and that is not replicated. */
  machine: z.string().min(1).max(255),
  seconds: z.number().int().min(profileSecondsMin).max(profileSecondsMax),
});

const machinesCheckedMax = 50;
const checkBody = z.strictObject({
  /** Machines of the appliance whose agents try their own ways too. */
  machineIds: z.array(machineIdShape).max(machinesCheckedMax).default([]),
});

/** Of a fabric, which is an appliance. */
export function applianceActions(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  return {
    changeLineLimits: defineAction({
      body: limitsBody,
      isLong: true,
      run: async (call, body) => {
        const change = parseInput(limitsChangeShape, body, "the change of the limits");
        return await begin(front, call, { kind: applianceJobKinds.limits, order: "changeLimits", parameters: { change } });
      },
    }),
    profileMachine: defineAction({
      body: profileBody,
      isLong: true,
      run: async (call, wish) => await begin(front, call, { kind: applianceJobKinds.profile, order: "profileMachine", parameters: wish }),
    }),
    checkNetwork: defineAction({
      body: checkBody,
      isLong: true,
      run: async (call, { machineIds }) => {
        const parameters = { vaultId: vaultOf(call.id).text, machineIds };
        return await begin(front, call, { kind: applianceJobKinds.check, order: "checkNetwork", parameters });
      },
    }),
  };
}

async function begin(
  { services, engine }: ReplicationFront,
  { id, caller }: ArmCall,
  wish: { readonly kind: string; readonly order: OrderDraft["kind"]; readonly parameters: object },
): Promise<ActionOutcome> {
  const applianceId = applianceOf(id);
  await requireKnownOrder(services, applianceId, wish.order);
  const { name = id.name } = (await services.appliances.find(applianceId)) ?? {};
  const target = { ...jobTarget(id, name, caller.name), lockKey: `${wish.kind}:${applianceId}` };
  return {
    kind: "accepted",
    operationId: await engine.submit({ kind: wish.kind, ...target, parameters: { applianceId, ...wish.parameters } }),
  };
}
