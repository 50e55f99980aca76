// Lets a proved person in: makes the principal at the first time, begins a session, writes it down. Roles are not given here.

import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { RateLimit } from "../api/rate-limits.ts";
import type { LocalAccounts } from "../db/local-account.ts";
import type { People } from "../db/people.ts";
import type { Sessions } from "../db/sessions.ts";
import type { SignIn, SignIns } from "../db/sign-ins.ts";
import type { IdentityProvider, ProvenPerson } from "./identity-provider.ts";
import { signInLocally } from "./local-account.ts";
import type { SignInAudit } from "./sign-in-audit.ts";
import type { SignInConfig } from "./sign-in-config.ts";
import type { Tokens } from "./tokens.ts";

/** What the routes for people work with. */
export interface PeopleParts {
  readonly config: SignInConfig;
  readonly provider: IdentityProvider | undefined;
  readonly people: People;
  readonly sessions: Sessions;
  readonly signIns: SignIns;
  readonly localAccounts: LocalAccounts;
  readonly tokens: Tokens;
  readonly tenantId: string;
  readonly loginUrl: () => string;
  readonly isForManagement: (scope: string) => boolean;
  /** Counts what failed, by address. */
  readonly failures: RateLimit;
  /** Counts sign-ins that were begun, by address. */
  readonly starts: RateLimit;
  readonly audit: SignInAudit;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface Admitted {
  readonly sessionId: string;
  readonly name: string;
}

/** Fault SignInRefused when the person is disabled here, or the sign-in is over. */
export async function admitPerson(parts: PeopleParts, proven: ProvenPerson, signIn: SignIn, requestId: string): Promise<Admitted> {
  const { people, sessions, config, clock, audit, signIns } = parts;
  const person = await people.signedIn(proven);
  const event = { principalId: person.principalId, name: person.name, type: "people" as const, requestId };
  if (person.disabledAt !== undefined) {
    await audit.refused(event, "the person is disabled");
    throw new Fault("SignInRefused", "could not sign in: this person was disabled in the hub");
  }
  const sessionId = await sessions.open({
    principalId: person.principalId,
    clientId: signIn.clientId,
    claimedGroups: proven.groups,
    providerToken: proven.refreshToken,
    endsAt: toTimestamp(clock.nowMs() + config.sessionHours * 3600_000),
  });
  await finish(signIns, sessions, { signIn, sessionId });
  await audit.signedIn(event, `${signIn.kind} with ${proven.issuer}, ${proven.groups.length} groups`);
  return { sessionId, name: person.name };
}

/** undefined when the secret is wrong, used up, or of an account that has ended. */
export async function admitLocal(
  parts: PeopleParts,
  shown: { readonly secret: string; readonly clientId: string; readonly requestId: string; readonly signIn: SignIn | undefined },
): Promise<Admitted | undefined> {
  const { localAccounts, sessions, clock, audit, config, signIns } = parts;
  const { secret, clientId, requestId, signIn } = shown;
  const account = await signInLocally(localAccounts, secret, clock);
  if (account === undefined) {
    await audit.refused({ type: "localAccount", requestId }, "the secret of the local account is wrong, used or ended");
    return undefined;
  }
  const longestMs = clock.nowMs() + config.sessionHours * 3600_000;
  const endsAt = toTimestamp(Math.min(fromTimestamp(account.expiresAt), longestMs));
  const { principalId } = account;
  const sessionId = await sessions.open({ principalId, clientId, claimedGroups: [], providerToken: undefined, endsAt });
  if (signIn !== undefined) await finish(signIns, sessions, { signIn, sessionId });
  await audit.signedIn({ principalId, name: "local account", type: "localAccount", requestId }, `its secret (${account.kind})`);
  return { sessionId, name: "local account" };
}

async function finish(
  signIns: SignIns,
  sessions: Sessions,
  { signIn, sessionId }: { readonly signIn: SignIn; readonly sessionId: string },
): Promise<void> {
  if (await signIns.prove(signIn.signInId, sessionId)) return;
  await sessions.end(sessionId, "the sign-in was over");
  throw new Fault("SignInRefused", "could not sign in: it took too long, or it was ended elsewhere");
}
