// Sign-ins in the audit trail: who came in and how, and who was refused. What strangers can cause is bounded.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { createRateLimit } from "../api/rate-limits.ts";
import type { AuditTrail } from "../db/audit.ts";

interface SignInEvent {
  readonly principalId: string;
  readonly name: string;
  readonly type: "people" | "servicePrincipals" | "localAccount";
  readonly requestId: string;
}

export interface SignInAudit {
  /** Durable on return; the tokens come after it. */
  signedIn(event: SignInEvent, how: string): Promise<void>;
  /** A known principal, or undefined for a stranger. */
  refused(event: Pick<SignInEvent, "requestId"> & Partial<SignInEvent>, reason: string): Promise<void>;
  signedOut(event: SignInEvent, reason: string): Promise<void>;
}

const nobody = "00000000-0000-0000-0000-000000000000";
/** Beyond it refusals are only logged: strangers must not fill the trail. */
const refusalRate = { perSecond: 2, burst: 200 };

export function createSignInAudit(dependencies: {
  readonly audit: AuditTrail;
  readonly subscriptionId: string;
  readonly clock: Clock;
  readonly log: Log;
}): SignInAudit {
  const { audit, subscriptionId, clock, log } = dependencies;
  const refusals = createRateLimit({ rate: refusalRate, clock });
  const subjectOf = (event: Pick<SignInEvent, "requestId"> & Partial<SignInEvent>, verb: string) => {
    const { principalId = nobody, name = "", type = "people", requestId } = event;
    return {
      principalId,
      principalName: name,
      action: `Watari.Identity/${type}/${verb}/action`,
      resourceId: `/subscriptions/${subscriptionId}/providers/Watari.Identity/${type}/${principalId}`,
      correlationId: requestId,
    };
  };
  return {
    signedIn: async (event, how) => await audit.note(subjectOf(event, "signIn"), `signed in by ${how}`),
    refused: async (event, reason) => {
      log.info("sign-in refused", { reason, principalId: event.principalId, requestId: event.requestId });
      if (refusals.take("all").kind === "taken") await audit.note(subjectOf(event, "signIn"), `refused: ${reason}`);
    },
    signedOut: async (event, reason) => await audit.note(subjectOf(event, "signOut"), reason),
  };
}
