// Job UpdatePolicy: a changed policy is stored, and every machine that replicates by it is told.

import { sql } from "kysely";
import { z } from "zod";
import { Semaphore } from "../../base/semaphore.ts";
import { asFault, Fault } from "../../contract/errors.ts";
import { parseMachineId } from "../../contract/ids.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import { defineJob, type JobKind, type Queryable, type StepContext } from "../jobs/job.ts";
import { giveOrder } from "./give-order.ts";
import type { Item, ProtectionState } from "./item.ts";
import { policyType } from "./names.ts";
import { itemsUnder, presentPolicy, settingsShape, toAgentPolicy, type Settings } from "./policy.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({ policyId: z.string(), settings: z.record(z.string(), z.unknown()) });
type Parameters = z.infer<typeof parametersShape>;
interface State {
  readonly toldCount?: number;
}

const machinesAtOnceMax = 8;
const replicating: ReadonlySet<ProtectionState> = new Set(["Protected", "InitialReplicationInProgress"]);
/** Machines that do not replicate now and may again: what they would go on with is not known before their job has ended. */
const undecided: ReadonlySet<ProtectionState> = new Set([
  "EnablingProtection",
  "UnplannedFailoverInitiated",
  "UnplannedFailoverFailed",
  "UnplannedFailoverCommitPending",
  "CancelFailoverInProgressOnRecovery",
  "CancelFailoverFailedOnRecovery",
]);

export function isReplicating(item: Item): boolean {
  return replicating.has(item.protectionState) && item.machineId !== undefined;
}

/** Throws StateConflict while a machine under the policy is on its way in or out. */
export function refuseUndecided(policyId: ResourceId, followers: Awaited<ReturnType<typeof itemsUnder>>): void {
  const items = followers.filter(({ item }) => undecided.has(item.protectionState));
  if (items.length === 0) return;
  throw new Fault("StateConflict", `could not change the policy ${policyId.name}: machines under it are being enabled or moved`, {
    evidence: { protectedItems: items.map(({ id, item }) => `${id} ${item.protectionState}`).slice(0, 20) },
    action: "wait for their jobs, commit or cancel their migrations, or make another policy",
  });
}

export function defineUpdatePolicy(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: "UpdatePolicy",
    title: "change a replication policy",
    parameters: parametersShape,
    steps: [
      {
        name: "store",
        title: "store the policy",
        run: async ({ parameters: { policyId, settings }, write }) => {
          await write(async (db) => await storeSettings(db, parseResourceId(policyId), settingsShape.parse(settings)));
          return {};
        },
        undo: "the policy is what was asked for; machines that could not be told are named, and the job can be restarted",
      },
      {
        name: "tell",
        title: "tell every machine that replicates by the policy",
        weight: 4,
        run: async (context) => await tellMachines(world, context),
        undo: "a machine that has the new policy keeps it; the others get it when the job is restarted",
      },
    ],
    settle: async (_db, { parameters, outcome }) => {
      if (outcome.kind !== "succeeded") return undefined;
      return presentPolicy(policyAt(parseResourceId(parameters.policyId), settingsShape.parse(parameters.settings)));
    },
    restart: async (db, { parameters }) => {
      const id = parseResourceId(parameters.policyId);
      const found = await sql<{ isSame: boolean }>`select properties->'settings' = ${JSON.stringify(parameters.settings)}::jsonb as "isSame"
        from resources where key = ${id.key}`.execute(db);
      if (found.rows[0]?.isSame === true) return;
      throw new Fault("StateConflict", `could not change the policy ${id.name} again: it was changed or removed meanwhile`, {
        evidence: { policyId: id.text },
        retry: "never",
      });
    },
  });
}

async function tellMachines(world: Replication, context: StepContext<Parameters, State>): Promise<State> {
  const { services, limits } = world;
  const settings = settingsShape.parse(context.parameters.settings);
  const items = (await itemsUnder(services.database.db, parseResourceId(context.parameters.policyId))).filter(({ item }) =>
    isReplicating(item),
  );
  const turns = new Semaphore(machinesAtOnceMax);
  const faults: string[] = [];
  const tell = async ({ applianceId, machineId, machineName, group }: Item): Promise<void> => {
    if (machineId === undefined) return;
    try {
      const draft = { kind: "setPolicy", machineId: parseMachineId(machineId), policy: toAgentPolicy(settings, group) } as const;
      const wish = { applianceId, draft, label: `setPolicy/${machineId}`, pollMs: limits.pollMs };
      await giveOrder(services, context, { ...wish, waitSecondsMax: limits.shortOrderSeconds });
    } catch (error) {
      context.signal.throwIfAborted();
      const fault = asFault(error, "tell a machine its policy");
      faults.push(`${machineName}: ${fault.message}`);
    }
  };
  await Promise.all(items.map(async ({ item }) => await turns.run(async () => await tell(item))));
  if (faults.length === 0) return { toldCount: items.length };
  throw new Fault("StateConflict", `${faults.length} of ${items.length} machines could not be told their policy`, {
    evidence: { machines: faults.toSorted().slice(0, 20) },
    action: "see to the machines that are named, then restart this job; the others have the new policy",
  });
}

async function storeSettings(db: Queryable, id: ResourceId, settings: Settings): Promise<void> {
  const properties = JSON.stringify({ settings });
  await sql`insert into resources
      (key, id, type, name, parent_key, location, envelope, properties, provisioning_state, etag, created_at, updated_at)
    values (${id.key}, ${id.text}, ${policyType.toLowerCase()}, ${id.name}, ${id.parentKey}, null, '{}', ${properties}::jsonb,
      'Succeeded', '"' || gen_random_uuid() || '"', clock_timestamp(), clock_timestamp())
    on conflict (key) do update set properties = excluded.properties, etag = excluded.etag, updated_at = excluded.updated_at`.execute(db);
}

function policyAt(id: ResourceId, settings: JsonObject): Resource {
  const never = { createdAt: "", updatedAt: "", etag: "" };
  return { id, location: undefined, envelope: {}, properties: { settings }, provisioningState: "Succeeded", ...never };
}
