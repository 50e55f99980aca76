// A copy of a machine tells the appliance once that it is there, so that an operator learns of it. It sends nothing else.

import type { Clock } from "../../base/clock.ts";
import { withRetry } from "../../base/retry.ts";
import type { MachineFacts, PollRequest } from "../../contract/agent-control.ts";
import { asFault, toReport } from "../../contract/errors.ts";
import type { AgentLog } from "../log.ts";
import type { Identity } from "./state-folder.ts";

const attemptsMax = 8;
const attemptMsMax = 20_000;

export interface CopyTelling {
  readonly identity: Identity;
  readonly facts: MachineFacts;
  /** The poll that the original would send, without results. */
  readonly request: PollRequest;
  readonly poll: (request: PollRequest, signal: AbortSignal) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: AgentLog;
}

/**
 * Only hardware that differs is told of: the appliance refuses such a call before it looks at anything in it. Never rejects, for the
 * refusal is the expected answer, and the agent ends with its own fault in any case.
 */
export async function tellCopy(telling: CopyTelling, signal: AbortSignal): Promise<void> {
  const { identity, facts, request, poll, clock, log } = telling;
  if (identity.smbiosUuid === "" || facts.smbiosUuid === "" || identity.smbiosUuid === facts.smbiosUuid) return;
  try {
    await withRetry(
      {
        clock,
        attemptsMax,
        firstWaitMs: 500,
        waitMaxMs: 10_000,
        isTransient: (error) => asFault(error, "tell the appliance of the copy").code === "ApplianceUnreachable",
        signal,
      },
      async () =>
        await poll({ ...request, facts, results: [], waitSeconds: 0 }, AbortSignal.any([signal, AbortSignal.timeout(attemptMsMax)])),
    );
  } catch (error) {
    log.info("the appliance was told of the copy", { answer: toReport(asFault(error, "tell the appliance of the copy")) });
  }
}
