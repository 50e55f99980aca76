// Jobs of a vault's key: RotateVaultKey makes the next generation the current one, CountVaultSeals counts what each seals, DestroyVaultKey ends one.
// Keys go to appliances by a route that asks for their certificate; neither jobs nor orders hold any.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { ApplianceId } from "../../contract/ids.ts";
import type { SealCensus } from "../../vault/seal-census.ts";
import { notify } from "../db/notifications.ts";
import { openSecretStore } from "../db/secrets.ts";
import {
  discardPrepared,
  keepCensus,
  keyNameOf,
  moveGeneration,
  prepareGeneration,
  readGenerations,
  useGeneration,
  vaultKeysTopic,
} from "../db/vault-keys.ts";
import { defineJob, type JobKind, type JobStep, type Queryable, type StepContext } from "../jobs/job.ts";
import type { JsonObject } from "../db/resources.ts";
import { giveOrder, leaveOrder, type DoneResult, type OrderWish } from "./give-order.ts";
import { presentGeneration } from "./vault-key-view.ts";
import type { Replication } from "./world.ts";

const keyBytes = 32;
const parametersShape = z.object({ vaultId: z.string(), generation: z.number().int().min(1) });
const rotateShape = parametersShape.extend({ destroysFormer: z.boolean() });
type Parameters = z.infer<typeof parametersShape>;
type Context = StepContext<Parameters, object>;

export const vaultKeyKinds = { rotate: "RotateVaultKey", count: "CountVaultSeals", destroy: "DestroyVaultKey" } as const;

export function defineRotateVaultKey(world: Replication): JobKind {
  const { services } = world;
  return defineJob<z.infer<typeof rotateShape>, object>({
    kind: vaultKeyKinds.rotate,
    title: "change the vault's key",
    parameters: rotateShape,
    steps: [
      {
        name: "make",
        title: "make a key of the next generation",
        run: async ({ parameters: { vaultId, generation, destroysFormer }, write }) => {
          await write(async (db) => {
            await prepareGeneration(db, vaultId.toLowerCase(), { generation, destroysFormer });
            const secrets = openSecretStore({ db, sealer: services.secrets.sealer });
            await secrets.getOrCreate(vaultId, keyNameOf(generation), () => services.random.bytes(keyBytes));
            await notify(db, vaultKeysTopic);
          });
          return {};
        },
        // Appliances that have it seal nothing with it, and take the next one of that number in its place.
        undo: async ({ parameters: { vaultId, generation }, write }) =>
          await write(async (db) => {
            if (await discardPrepared(db, vaultId.toLowerCase(), generation)) await removeKey(db, vaultId, generation);
          }),
      },
      {
        name: "give",
        title: "let every appliance have the key before anything is sealed with it",
        weight: 2,
        run: async (context) => {
          const { generation } = context.parameters;
          await tellAppliances(world, context, "give", ({ generations }) => generations.includes(generation));
          return {};
        },
        undo: "an appliance that has a key seals nothing with it before it is the current one",
      },
      {
        name: "use",
        title: "make it the key of what is sealed from now on",
        run: async ({ parameters: { vaultId, generation }, write }) => {
          await write(async (db) => {
            await useGeneration(db, vaultId.toLowerCase(), generation);
            await notify(db, vaultKeysTopic);
          });
          return {};
        },
        undo: "something may be sealed with the key already; an appliance that was not told takes it at its next start, or when the job is restarted",
      },
      {
        name: "tell",
        title: "let every appliance seal with it",
        weight: 2,
        run: async (context) => {
          const { generation } = context.parameters;
          await tellAppliances(world, context, "tell", ({ current }) => current === generation);
          return {};
        },
        undo: "the key stays the current one",
      },
    ],
    settle: async (db, { parameters, outcome }) => (outcome.kind === "succeeded" ? await show(db, parameters) : undefined),
    restart: async (db, { parameters: { vaultId, generation } }) => {
      const newest = (await readGenerations(db, vaultId.toLowerCase())).at(-1);
      const isNext = newest !== undefined && newest.generation === generation - 1 && newest.state === "current";
      const isSame = newest?.generation === generation && (newest.state === "current" || newest.state === "prepared");
      if (!isNext && !isSame) throw changedMeanwhile(generation);
    },
  });
}

export function defineCountVaultSeals(world: Replication): JobKind {
  return defineJob<Parameters, object>({
    kind: vaultKeyKinds.count,
    title: "count what is sealed with each of the vault's keys",
    parameters: parametersShape,
    steps: [
      {
        name: "count",
        title: "look at every pack and recovery point",
        run: async (context) => {
          const { counts, unreadableCount, unreadableKeys } = await count(world, context);
          return { counts, unreadableCount, unreadableKeys };
        },
        undo: "counting only reads",
      },
    ],
    settle: async (db, { parameters, outcome }) => (outcome.kind === "succeeded" ? await show(db, parameters) : undefined),
    restart: async () => undefined,
  });
}

export function defineDestroyVaultKey(world: Replication): JobKind {
  return defineJob<Parameters, object>({
    kind: vaultKeyKinds.destroy,
    title: "destroy a key of the vault that nothing is sealed with",
    parameters: parametersShape,
    steps: [
      proveUnused(world, { name: "count", title: "look at every pack and recovery point" }),
      {
        name: "withhold",
        title: "give the key to nobody any more",
        run: async ({ parameters: { vaultId, generation }, write }) => {
          const isWithheld = await write(async (db) => {
            const move = { generation, from: ["former", "ending"], to: "ending" } as const;
            await notify(db, vaultKeysTopic);
            return await moveGeneration(db, vaultId.toLowerCase(), move);
          });
          if (!isWithheld) throw changedMeanwhile(generation);
          return {};
        },
        undo: async (context) => {
          const { vaultId, generation } = context.parameters;
          await context.write(async (db) => {
            await moveGeneration(db, vaultId.toLowerCase(), { generation, from: ["ending"], to: "former" });
            await notify(db, vaultKeysTopic);
          });
          // Those that let it go take it again when they hear of it; nothing waits for them, because nothing is sealed with it.
          for (const wish of await wishesOf(world, context, "restore")) await leaveOrder(world.services, context, wish);
        },
      },
      {
        name: "take",
        title: "let every appliance forget the key",
        weight: 2,
        run: async (context) => {
          const { generation } = context.parameters;
          await tellAppliances(world, context, "take", ({ generations }) => !generations.includes(generation));
          return {};
        },
        undo: "the step before gives it to them again",
      },
      proveUnused(world, { name: "countAgain", title: "look again, now that nobody can seal with it" }),
      {
        name: "destroy",
        title: "destroy the key",
        run: async ({ parameters: { vaultId, generation }, write }) => {
          await write(async (db) => {
            await moveGeneration(db, vaultId.toLowerCase(), { generation, from: ["ending"], to: "destroyed" });
            await removeKey(db, vaultId, generation);
          });
          return {};
        },
        undo: "a key that is destroyed is gone for good; nothing was sealed with it",
      },
    ],
    settle: async () => undefined,
    restart: async (db, { parameters: { vaultId, generation } }) => {
      const found = (await readGenerations(db, vaultId.toLowerCase())).find((each) => each.generation === generation);
      if (found?.state !== "former") throw changedMeanwhile(generation);
    },
  });
}

function proveUnused(world: Replication, names: { readonly name: string; readonly title: string }): JobStep<Parameters, object> {
  return {
    ...names,
    weight: 2,
    run: async (context) => {
      requireUnused(context.parameters.generation, await count(world, context));
      return {};
    },
    undo: "counting only reads",
  };
}

async function show(db: Queryable, { vaultId, generation }: Parameters): Promise<JsonObject | undefined> {
  const found = (await readGenerations(db, vaultId.toLowerCase())).find((each) => each.generation === generation);
  return found === undefined ? undefined : presentGeneration(vaultId, found);
}

async function removeKey(db: Queryable, vaultId: string, generation: number): Promise<void> {
  await db.deleteFrom("secrets").where("owner_key", "=", vaultId.toLowerCase()).where("name", "=", keyNameOf(generation)).execute();
}

async function count(world: Replication, context: Context): Promise<SealCensus> {
  const { vaultId } = context.parameters;
  const reader = await world.openReader(vaultId);
  let told: Promise<void> = Promise.resolve();
  const onProgress = ({ doneCount, totalCount }: { readonly doneCount: number; readonly totalCount: number }): void => {
    if (doneCount % progressEach === 0)
      told = told.then(async () => await context.progress((doneCount / totalCount) * 100, `${doneCount} objects looked at`));
  };
  const census = await reader.countSeals({ signal: context.signal, onProgress });
  await told;
  await context.write(async (db) => await keepCensus(db, vaultId.toLowerCase(), census));
  const { unreadableCount, unreadableKeys } = census;
  if (unreadableCount > 0)
    await context.log("some objects do not say what seals them", { count: unreadableCount, keys: unreadableKeys.join(" ") });
  return census;
}

const progressEach = 1000;
function requireUnused(generation: number, { counts, unreadableCount, unreadableKeys }: SealCensus): void {
  const left = counts.find((each) => each.generation === generation);
  if (left === undefined && unreadableCount === 0) return;
  const { packCount = 0, packBytes = 0, pointCount = 0 } = left ?? {};
  throw new Fault("StateConflict", `could not destroy the vault's key of generation ${generation}: it may still be needed`, {
    evidence: { generation, packCount, packBytes, pointCount, unreadableCount, unreadableKeys: [...unreadableKeys] },
    causes:
      left === undefined
        ? ["objects in the vault do not say what seals them"]
        : [
            "collection has not rewritten all packs yet",
            "recovery points of before the rotation are kept",
            "packs of an appliance that was removed",
          ],
    action:
      left === undefined
        ? "run watari appliance vault verify, and remove the objects that are named"
        : "wait until collection has rewritten the packs and the points have expired; watari vault keys shows how much is left",
    retry: "later",
  });
}

async function wishesOf({ services, limits }: Replication, { parameters }: Context, label: string): Promise<readonly OrderWish[]> {
  const appliances = await services.appliances.inVault(parameters.vaultId.toLowerCase());
  const wishOf = (applianceId: ApplianceId): OrderWish => ({
    applianceId,
    draft: { kind: "takeVaultKeys" },
    label: `${label}/${applianceId}`,
    waitSecondsMax: limits.shortOrderSeconds,
    pollMs: limits.pollMs,
  });
  return appliances.map(({ applianceId }) => wishOf(applianceId));
}

/** Every appliance of the vault takes its keys anew; one that is silent or has others than it should ends the step. */
async function tellAppliances(
  world: Replication,
  context: Context,
  label: string,
  isDone: (keys: NonNullable<DoneResult["vaultKeys"]>) => boolean,
): Promise<void> {
  const wishes = await wishesOf(world, context, label);
  const results = await Promise.all(wishes.map(async (wish) => ({ wish, result: await giveOrder(world.services, context, wish) })));
  for (const { wish, result } of results) {
    if (result.vaultKeys !== undefined && isDone(result.vaultKeys)) continue;
    throw new Fault("Internal", "an appliance has other keys than the vault", {
      evidence: { applianceId: wish.applianceId, generations: (result.vaultKeys?.generations ?? []).join(", ") },
    });
  }
}

function changedMeanwhile(generation: number): Fault {
  return new Fault("StateConflict", `could not go on with the vault's key of generation ${generation}: the keys were changed meanwhile`, {
    evidence: { generation },
    retry: "never",
  });
}
