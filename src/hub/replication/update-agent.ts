// Job UpdateMobilityService: the appliance puts its own agent in the place of the machine's, and the new one goes on replicating.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type StepContext } from "../jobs/job.ts";
import { giveOrder } from "./give-order.ts";
import { faultsOf, patchItem } from "./item.ts";
import { vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({
  itemId: z.string(),
  applianceId: z.string(),
  machineId: z.string(),
  /** The account that installed the agent unless given. */
  runAsAccountId: z.string().optional(),
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  readonly versionBefore?: string;
  readonly agentVersion?: string;
}

export function defineUpdateAgent(world: Replication): JobKind {
  const { services, limits } = world;
  return defineJob<Parameters, State>({
    kind: "UpdateMobilityService",
    title: "update the agent",
    parameters: parametersShape,
    steps: [
      {
        name: "update",
        title: "put the appliance's agent in the place of the machine's",
        weight: 3,
        run: async (context) => {
          const { applianceId, runAsAccountId, itemId } = context.parameters;
          const machineId = parseMachineId(context.parameters.machineId);
          const before = await services.appliances.machine(vaultOf(parseResourceId(itemId)).key, machineId);
          if (context.state.versionBefore === undefined) await context.save({ versionBefore: before?.report.agentVersion ?? "" });
          const draft = { kind: "updateAgent", machineId, ...(runAsAccountId === undefined ? {} : { runAsAccountId }) } as const;
          const wish = { applianceId, draft, label: "update", waitSecondsMax: limits.installSeconds, pollMs: limits.pollMs };
          const { agentVersion } = await giveOrder(services, context, wish);
          if (agentVersion === undefined) throw new Fault("Internal", "the appliance answered the order updateAgent without a version");
          return { agentVersion };
        },
        undo: "an agent that does not start is exchanged for the old one by the appliance itself; one that has started stays",
      },
      {
        name: "confirm",
        title: "wait until the new agent replicates changes",
        run: async (context) => await waitForChanges(world, context),
        undo: "waiting only reads",
      },
    ],
    settle: async (db, { parameters: { itemId }, outcome }) => {
      await patchItem(db, itemId, { busyWith: undefined, faults: faultsOf(outcome) });
      return await presentAfter(world, db, itemId);
    },
  });
}

async function waitForChanges({ services, limits }: Replication, context: StepContext<Parameters, State>): Promise<State> {
  const { clock, appliances } = services;
  const vault = vaultOf(parseResourceId(context.parameters.itemId));
  const machineId = parseMachineId(context.parameters.machineId);
  const agentVersion = stored(context.state, "agentVersion");
  const endsAtMs = clock.monotonicMs() + limits.shortOrderSeconds * 1000;
  for (;;) {
    const report = (await appliances.machine(vault.key, machineId))?.report;
    if (report?.agentVersion === agentVersion && report.state.phase === "delta") return {};
    if (clock.monotonicMs() > endsAtMs)
      throw new Fault("ReplicationNotReady", "the agent was updated and does not replicate changes", {
        evidence: { agentVersion: report?.agentVersion ?? "unknown", expected: agentVersion, phase: report?.state.phase ?? "unknown" },
      });
    await context.progress(0, `waits until the agent replicates changes (now: ${report?.state.phase ?? "unknown"})`);
    await clock.sleep(limits.pollMs, context.signal);
  }
}
