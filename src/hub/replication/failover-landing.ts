// The second half of a cut-over, once the source is off: boot, probe, post-launch actions, fill, and the commit where it needs no person.

import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parsePointId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { stored } from "../jobs/job.ts";
import type { FailoverContext, FailoverParameters, FailoverState, FailoverStep, TestedMachine } from "./failover-shape.ts";
import { readItem, type Item } from "./item.ts";
import { authorityOf, removeLandedRow, toNetwork } from "./landed.ts";
import { landedId, vaultOf } from "./names.ts";
import { runActions } from "./launch-actions.ts";
import { jobLaunchOf } from "./launch-settings.ts";
import { fillLanded, hydrationEvidence, launchFromPoint, probeLanded, removeLaunched } from "./launch-steps.ts";
import { upgradeStep } from "./os-upgrade.ts";
import { compareDowntime } from "./predict-downtime.ts";
import type { Replication } from "./world.ts";

export function landingSteps(world: Replication, { promotes }: Pick<FailoverParameters, "promotes">): readonly FailoverStep[] {
  return [
    launchStep(world),
    upgradeStep<FailoverParameters, FailoverState>(world),
    probeStep(world),
    actionsStep(world),
    fillStep(world),
    ...(promotes === undefined ? [] : [retireStep(world, promotes)]),
    commitStep(world),
  ];
}

/** Last of all, so that a promotion that goes back leaves the tested machine as it was, and the downtime holds no removal. */
function retireStep({ landings, services }: Replication, { landedName }: TestedMachine): FailoverStep {
  return {
    name: "retire",
    title: "end the test machine, whose place the promoted one has",
    run: async (context) => {
      await context.confirm();
      await landings.remove(authorityOf(context), landedName);
      const id = landedId(vaultOf(parseResourceId(context.parameters.itemId)), landedName);
      await context.write(async (db) => await removeLandedRow(db, id));
      return { testRemovedAt: toTimestamp(services.clock.nowMs()) };
    },
    undo: "what was written to a test is given up with it; the machine is tested anew",
  };
}

/** What was tested is what lands, whatever the source has become since; its disks are the final point's. */
function asTested(item: Item, tested: TestedMachine | undefined): Item {
  if (tested === undefined || item.facts === undefined) return item;
  const { cpuCount, memoryBytes, firmware, macs } = tested;
  return {
    ...item,
    facts: { ...item.facts, cpuCount, memoryBytes, firmware, nics: item.facts.nics.filter(({ mac }) => macs.includes(mac)) },
  };
}

function launchStep(world: Replication): FailoverStep {
  return {
    name: "launch",
    title: "boot the machine on the target",
    weight: 2,
    run: async (context) => {
      const { itemId, landedName, networkId } = context.parameters;
      stored(context.state, "fencedAt");
      const item = asTested(await readItem(world.services.database.db, itemId), context.parameters.promotes);
      const hydration = await launchFromPoint(world, context, {
        itemId,
        item,
        purpose: "migrated",
        name: landedName,
        pointId: parsePointId(stored(context.state, "pointId")),
        network: toNetwork(networkId),
        launch: jobLaunchOf(context.parameters),
        upgrade: context.state.upgrade,
      });
      return hydrationEvidence(world, hydration);
    },
    undo: async (context) => {
      await removeLaunched(world, context, context.parameters.itemId);
      await context.log("the target was removed");
    },
  };
}

function probeStep(world: Replication): FailoverStep {
  return {
    name: "probe",
    title: "probe the machine on the target",
    weight: 2,
    run: async (context) => {
      const evidence = await probeLanded(world, context, context.parameters.probe);
      return { ...evidence, ...downtimeUntil(context, evidence.probedAt ?? "") };
    },
    undo: "a probe leaves nothing",
  };
}

function actionsStep(world: Replication): FailoverStep {
  return {
    name: "actions",
    title: "ask the machine what must work",
    weight: 2,
    run: async (context) => {
      const { actions, landedName, probe } = context.parameters;
      await runActions(world, context, { machine: landedName, actions });
      const answers = (context.state.actions ?? []).filter(({ isRequired }) => isRequired);
      const last = answers.at(-1);
      // Without a probe the machine counts as back with the last answer that it owes.
      return probe === undefined && last !== undefined ? downtimeUntil(context, last.endedAt) : {};
    },
    undo: "asking leaves nothing",
  };
}

/** From the order to freeze, or from the switching off where nothing was frozen. */
function downtimeUntil({ state, parameters }: FailoverContext, backAt: string): Pick<FailoverState, "downtimeSeconds" | "downtime"> {
  const downFrom = state.quiesceOrderedAt ?? stored(state, "fencedAt");
  const downtimeSeconds = (fromTimestamp(backAt) - fromTimestamp(downFrom)) / 1000;
  // Nobody predicts how long a guest upgrades its system.
  const prediction = parameters.osUpgradeVersion === undefined ? state.prediction : undefined;
  return { downtimeSeconds, ...(prediction === undefined ? {} : { downtime: compareDowntime(prediction, downtimeSeconds) }) };
}

function fillStep(world: Replication): FailoverStep {
  return {
    name: "fill",
    title: "copy what still depends on the recovery point",
    weight: 6,
    run: async (context) => await fillLanded(world, context, context.parameters.landedName),
    undo: "what was copied goes with the machine, which the launch's undo removes",
  };
}

function commitStep(world: Replication): FailoverStep {
  return {
    name: "commit",
    title: "commit, where nobody has to",
    run: async (context) => {
      const { commit, landedName } = context.parameters;
      if (commit.mode === "byHand") return {};
      const { power, bytesToFill } = await world.target.status(landedName);
      if (power !== "running" || bytesToFill > 0)
        throw new Fault("StateConflict", `could not commit the migration: the machine ${landedName} does not stand by itself`, {
          evidence: { landedName, power, bytesToFill },
        });
      return { committedAt: toTimestamp(world.services.clock.nowMs()) };
    },
    undo: "the commit is only written when the job ends",
  };
}
