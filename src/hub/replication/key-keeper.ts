// Counts now and then what former keys of vaults still seal, and lets those go that were to be destroyed once they are unused.

import { asFault } from "../../contract/errors.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { claimVaultsToCount, keepCensus, readGenerations } from "../db/vault-keys.ts";
import type { JobEngine } from "../jobs/job-engine.ts";
import { vaultKeyKinds } from "./vault-key-jobs.ts";
import type { Replication } from "./world.ts";

const firstWaitMs = 120_000;
const lookMs = 600_000;
const countEveryMs = 3600_000;

/** Each vault is looked at by one hub of the database, once an hour. */
export function startKeyKeeper(world: Replication, engine: Pick<JobEngine, "submit">): AsyncDisposable {
  const { clock, log } = world.services;
  const closing = new AbortController();
  const { signal } = closing;
  const running = (async () => {
    for (let waitMs = firstWaitMs; ; waitMs = lookMs) {
      await clock.sleep(waitMs, signal).catch(() => undefined); // Only an abort rejects it, and that is looked at here:
      if (signal.aborted) return;
      await lookAtKeys(world, engine, { countEveryMs, signal }).catch((error: unknown) => {
        // The next round tries again.
        if (!signal.aborted) log.warn("keys of vaults not looked at", { reason: error instanceof Error ? error.message : String(error) });
      });
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort(new Error("the hub stops"));
      await running;
    },
  };
}

export async function lookAtKeys(
  world: Pick<Replication, "services" | "openReader">,
  engine: Pick<JobEngine, "submit">,
  { countEveryMs: everyMs, signal }: { readonly countEveryMs: number; readonly signal: AbortSignal },
): Promise<void> {
  const { services, openReader } = world;
  const { db } = services.database;
  for (const vaultKey of await claimVaultsToCount(db, everyMs)) {
    try {
      const vault = (await services.resources.get(vaultKey)).id;
      const census = await (await openReader(vault.text)).countSeals({ signal });
      await keepCensus(db, vault.key, census);
      const unused = (await readGenerations(db, vault.key)).find(
        ({ generation, state, destroysItself }) =>
          state === "former" && destroysItself && census.counts.every((each) => each.generation !== generation),
      );
      if (unused === undefined || census.unreadableCount > 0) continue;
      await engine.submit({
        ...{
          kind: vaultKeyKinds.destroy,
          scope: vault.key,
          targetId: vault.text,
          targetName: vault.name,
          lockKey: `vault-keys:${vault.key}`,
        },
        ...{ actor: "watari", parameters: { vaultId: vault.text, generation: unused.generation } },
      });
    } catch (error) {
      signal.throwIfAborted();
      const fault = asFault(error, "count what the keys of a vault seal");
      services.log.warn("what keys seal was not counted", {
        vault: parseResourceId(vaultKey).name,
        fault: fault.code,
        reason: fault.message,
      });
    }
  }
}
