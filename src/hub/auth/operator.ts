// The first operator: made at the first start, Owner of the subscription. Its secret is in a 0600 file, has an end, and is renewed before it.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { Credentials } from "../db/credentials.ts";
import type { Principals } from "../db/principals.ts";
import type { ResourceStore } from "../db/resources.ts";
import { roleAssignmentType } from "../db/role-assignments.ts";
import { ownerRoleId } from "./builtin-roles.ts";

export interface OperatorFile {
  readonly managementUrl: string;
  readonly loginUrl: string;
  readonly tenantId: string;
  readonly subscriptionId: string;
  readonly caPem: string;
}

interface Dependencies {
  readonly principals: Principals;
  readonly credentials: Credentials;
  readonly random: Random;
  readonly clock: Clock;
  readonly stateDir: string;
}

const secretBytes = 32;
const dayMs = 86_400_000;
const lifeMs = 90 * dayMs;
/** So long before its end a secret gets a successor; both are accepted meanwhile, for whoever has signed in with the older one. */
const overlapMs = 30 * dayMs;
const lookMs = dayMs / 2;

const fileShape = z.looseObject({ clientId: z.string(), clientSecret: z.string() });

/** A start that was cut is gone on with by the next. Answers the file's path when it was written. */
export async function bootstrapOperator(
  dependencies: Dependencies & { readonly resources: ResourceStore; readonly facts: OperatorFile },
): Promise<string | undefined> {
  const { principals, credentials, resources, random, clock, stateDir, facts } = dependencies;
  if (await principals.hadOperator()) return undefined;
  const [principalId, clientId, clientSecret] = [random.uuid(), random.uuid(), makeSecret(random)];
  const path = pathIn(stateDir);
  // Before the principal, or a start that is cut would leave one that nobody can sign in as. Whoever reads the file at once has the secret
  // that holds a moment later: it is not written twice.
  await writeSecret(path, { ...facts, clientId, clientSecret });
  const scope = `/subscriptions/${facts.subscriptionId}`;
  await resources.save({
    id: parseResourceId(`${scope}/providers/${roleAssignmentType}/${principalId}`),
    properties: {
      principalId,
      roleDefinitionId: `/providers/Microsoft.Authorization/roleDefinitions/${ownerRoleId}`,
      principalType: "ServicePrincipal",
      scope,
    },
  });
  await principals.add({ principalId, clientId, kind: "operator", name: "operator" }, undefined);
  const expiresAt = toTimestamp(clock.nowMs() + lifeMs);
  await credentials.addSecret({ credentialId: random.uuid(), principalId, secretHash: hashOf(clientSecret), expiresAt });
  await principals.hadOperator(); // Remembered before anyone can remove it.
  return path;
}

/** "renewed": the file has a new secret, and the one before lasts for a while. "left": the file was carried away, and nothing is written. */
export async function renewOperator({
  principals,
  credentials,
  random,
  clock,
  stateDir,
}: Dependencies): Promise<{ readonly kind: "fresh" | "renewed" | "left"; readonly endsAt?: string }> {
  const path = pathIn(stateDir);
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return { kind: "left" };
  const file = fileShape.parse(JSON.parse(text));
  const principal = await principals.findClient(file.clientId);
  if (principal?.kind !== "operator") return { kind: "left" }; // It was removed, or the file is of another hub.
  const { principalId } = principal;
  const nowMs = clock.nowMs();
  // A hub of an earlier version gave it a secret without an end: it gets one.
  await principals.endFirstSecret(principalId, { credentialId: random.uuid(), expiresAt: toTimestamp(nowMs + overlapMs) });
  // What counts is the secret that the file has: a hub that was killed before it wrote the file has left another in the database.
  const present = await credentials.findSecret(principalId, hashOf(file.clientSecret));
  const endMs = present === undefined ? 0 : fromTimestamp(present.expiresAt);
  if (endMs - nowMs > overlapMs) return { kind: "fresh", endsAt: toTimestamp(endMs) };
  for (const { credentialId, kind, expiresAt } of await credentials.of(principalId))
    if (kind === "secret" && fromTimestamp(expiresAt) <= nowMs) await credentials.remove(principalId, credentialId);
  const clientSecret = makeSecret(random);
  const endsAt = toTimestamp(nowMs + lifeMs);
  // Accepted before anyone can read it: the file never has a secret that does not hold.
  await credentials.addSecret({ credentialId: random.uuid(), principalId, secretHash: hashOf(clientSecret), expiresAt: endsAt });
  await writeSecret(path, { ...file, clientSecret });
  return { kind: "renewed", endsAt };
}

/** Looks twice a day until it is closed. */
export function keepOperator(dependencies: Dependencies & { readonly log: Log }): AsyncDisposable {
  const { clock, log } = dependencies;
  const closing = new AbortController();
  const work = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      try {
        const { kind, endsAt } = await renewOperator(dependencies);
        if (kind === "renewed") log.info("operator's secret renewed", { endsAt });
      } catch (error) {
        log.warn("operator's secret was not renewed", { reason: error instanceof Error ? error.message : String(error) });
      }
      await clock.sleep(lookMs, closing.signal).catch(() => undefined); // Ends with the hub.
    }
  };
  const done = work();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      await done;
    },
  };
}

function pathIn(stateDir: string): string {
  return join(stateDir, "operator.json");
}

function makeSecret(random: Random): string {
  return Buffer.from(random.bytes(secretBytes)).toString("base64url");
}

function hashOf(secret: string): string {
  return createHash("sha256").update(secret, "utf8").digest("hex");
}

async function writeSecret(path: string, facts: object): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(facts, undefined, 2)}\n`, { mode: 0o600 });
}
