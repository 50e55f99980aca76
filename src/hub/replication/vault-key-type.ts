// Key generations of a vault: a PUT of the next number changes the key, a DELETE destroys one that nothing is sealed with.

import { z } from "zod";
import { keyGenerationsMax } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { defineAction, defineResource, noBody, type ArmCall, type ResourceType, type WriteOutcome } from "../api/resource-type.ts";
import { readGenerations, setDestroysItself, type KeyGeneration } from "../db/vault-keys.ts";
import type { JobOrder } from "../jobs/job-engine.ts";
import { requireKnownOrder } from "./give-order.ts";
import { keyGenerationType, vaultOf } from "./names.ts";
import { vaultKeyKinds } from "./vault-key-jobs.ts";
import { presentGeneration } from "./vault-key-view.ts";
import type { ReplicationFront } from "./world.ts";

const wishShape = z.strictObject({
  /** Once nothing is sealed with it any more it is destroyed without a further word. Of a new generation: those before it. */
  destroyWhenUnused: z.boolean().optional(),
});

export function vaultKeyResource(front: ReplicationFront): ResourceType {
  const { services, engine } = { services: front.services, engine: () => front.engine };
  const generationsOf = async (id: ResourceId): Promise<readonly KeyGeneration[]> =>
    (await readGenerations(services.database.db, vaultOf(id).key)).filter(({ state }) => state !== "destroyed");
  const find = async (id: ResourceId): Promise<KeyGeneration | undefined> =>
    (await generationsOf(id)).find(({ generation }) => String(generation) === id.name);
  return defineResource({
    type: keyGenerationType,
    within: "parent",
    isBare: true,
    longWrites: ["PUT", "DELETE"],
    properties: wishShape,
    source: {
      get: async ({ id }) => {
        const found = await find(id);
        return found === undefined ? undefined : presentGeneration(vaultOf(id).text, found);
      },
      list: async ({ id }) => ({
        items: (await generationsOf(id)).map((each) => presentGeneration(vaultOf(id).text, each)),
        next: undefined,
      }),
    },
    onPut: async (call, { properties }) => await put(front, call, properties, await generationsOf(call.id)),
    onDelete: async (call) => {
      const found = await find(call.id);
      if (found === undefined) return { kind: "done" }; // It went meanwhile.
      requireFormer(found);
      await requireAppliances(front, call.id);
      const parameters = { vaultId: vaultOf(call.id).text, generation: found.generation };
      return { kind: "accepted", operationId: await engine().submit(orderOf(call, vaultKeyKinds.destroy, parameters)) };
    },
    actions: {
      count: defineAction({
        body: noBody,
        isLong: true,
        run: async (call) => {
          const parameters = { vaultId: vaultOf(call.id).text, generation: Number(call.id.name) };
          return { kind: "accepted", operationId: await engine().submit(orderOf(call, vaultKeyKinds.count, parameters)) };
        },
      }),
    },
  });
}

async function put(
  front: ReplicationFront,
  call: ArmCall,
  { destroyWhenUnused }: z.infer<typeof wishShape>,
  generations: readonly KeyGeneration[],
): Promise<WriteOutcome> {
  const { services, engine } = front;
  const vault = vaultOf(call.id);
  const { db } = services.database;
  const present = generations.find(({ generation }) => String(generation) === call.id.name);
  if (present !== undefined) {
    if (destroyWhenUnused === undefined) return { kind: "answered", body: presentGeneration(vault.text, present) };
    if (destroyWhenUnused) requireFormer(present);
    await setDestroysItself(db, vault.key, present.generation, destroyWhenUnused ? "yes" : "no");
    return { kind: "answered", body: presentGeneration(vault.text, { ...present, destroysItself: destroyWhenUnused }) };
  }
  const next = ((await readGenerations(db, vault.key)).at(-1)?.generation ?? 0) + 1;
  if (call.id.name !== String(next))
    throw new Fault("InputInvalid", `could not make the key generation ${call.id.name}: the next one is ${next}`, { evidence: { next } });
  if (generations.length >= keyGenerationsMax)
    throw new Fault("StateConflict", "could not change the vault's key: it has as many generations as a vault may have", {
      evidence: { generations: generations.length, generationsMax: keyGenerationsMax },
      action: "destroy generations that nothing is sealed with",
      retry: "later",
    });
  await requireAppliances(front, call.id);
  const parameters = { vaultId: vault.text, generation: next, destroysFormer: destroyWhenUnused === true };
  const operationId = await engine.submit(orderOf(call, vaultKeyKinds.rotate, parameters));
  const prepared = { generation: next, state: "prepared", destroysItself: false } as const;
  return { kind: "accepted", operationId, body: presentGeneration(vault.text, prepared) };
}

/** One change of a vault's keys at a time: a second one is refused while the first is under way. */
function orderOf({ id, caller }: ArmCall, kind: string, parameters: { readonly vaultId: string; readonly generation: number }): JobOrder {
  const vault = vaultOf(id);
  return {
    ...{ kind, scope: vault.key, targetId: vault.text, targetName: vault.name, actor: caller.name, parameters },
    lockKey: `${kind === vaultKeyKinds.count ? "count-seals" : "vault-keys"}:${vault.key}`,
  };
}

async function requireAppliances({ services }: ReplicationFront, id: ResourceId): Promise<void> {
  for (const { applianceId } of await services.appliances.inVault(vaultOf(id).key))
    await requireKnownOrder(services, applianceId, "takeVaultKeys");
}

function requireFormer({ generation, state }: KeyGeneration): void {
  if (state === "former") return;
  throw new Fault("StateConflict", `could not destroy the vault's key of generation ${generation}: it is ${state}`, {
    evidence: { generation, state },
    action: state === "current" ? "change the vault's key first" : "wait until the job that changes the keys has ended",
    retry: "never",
  });
}
