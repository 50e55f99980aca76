// After a start the ledger of points is held against the vault, as soon as the vault answers; until then the appliance's health says so.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { asFault } from "../../contract/errors.ts";
import type { Vault } from "../../vault/vault.ts";
import type { Health } from "../health.ts";
import type { PointLedger } from "./point-ledger.ts";

const vaultRetryMs = 3_000;

/** Resolves once the ledger is right, or after the abort. */
export async function recoverWhenReached(
  parts: { readonly ledger: PointLedger; readonly vault: Vault; readonly health: Health; readonly clock: Clock; readonly log: Log },
  signal: AbortSignal,
): Promise<void> {
  const { ledger, vault, health, clock, log } = parts;
  while (!signal.aborted) {
    try {
      await ledger.recover(vault);
      health.set("storage", undefined);
      return;
    } catch (error) {
      const fault = asFault(error, "look into the vault after the start");
      health.set("storage", fault);
      log.warn("vault not reached yet", { fault: fault.code, reason: fault.message });
      await clock.sleep(vaultRetryMs, signal).catch(() => undefined); // The loop's head sees the abort.
    }
  }
}
