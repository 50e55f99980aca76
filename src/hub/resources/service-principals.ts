// Watari.Identity/servicePrincipals: who may sign in as a program, with which secrets and certificates, and until when.

import { createHash } from "node:crypto";
import { z } from "zod";
import { fromTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import { defineAction, defineResource, type ActionOutcome, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import type { Credential, Credentials } from "../db/credentials.ts";
import type { Principal, Principals } from "../db/principals.ts";
import type { JsonObject } from "../db/resources.ts";
import { principalSource } from "./principal-source.ts";

const principalNameShape = z.uuid("the name of a service principal is a UUID");
const typeName = "Watari.Identity/servicePrincipals";
const secretBytes = 32;
const lifeMsMax = 2 * 366 * 86_400_000;
const credentialShape = z
  .strictObject({
    secret: z.literal("generate").optional(),
    certificatePem: z.string().max(20_000).optional(),
    expiresAt: z.iso.datetime(),
  })
  .refine(({ secret, certificatePem }) => (secret === undefined) !== (certificatePem === undefined), {
    message: 'either secret: "generate" or certificatePem',
  });

interface Dependencies {
  readonly principals: Principals;
  readonly credentials: Credentials;
  readonly random: Random;
  readonly clock: Clock;
}

export function servicePrincipalType(dependencies: Dependencies): ResourceType {
  const { principals, credentials, random } = dependencies;
  const find = async (call: ArmCall): Promise<Principal | undefined> => {
    const found = z.uuid().safeParse(call.id.name).success ? await principals.find(call.id.name.toLowerCase()) : undefined;
    return found?.kind === "servicePrincipal" || found?.kind === "operator" ? found : undefined;
  };
  const show = async (scope: string, principal: Principal): Promise<JsonObject> =>
    toBody(scope, principal, await credentials.of(principal.principalId));
  return defineResource({
    type: typeName,
    within: "subscription",
    properties: z.strictObject({ displayName: z.string().min(1).max(120) }),
    onPut: async (call, desired) => {
      const present = await find(call);
      const principalId = parseInput(principalNameShape, call.id.name.toLowerCase(), "the name of the service principal");
      if (present === undefined && (await principals.find(principalId)) !== undefined)
        throw new Fault("StateConflict", "could not create the principal: another kind of principal has this id", { retry: "never" });
      if (present !== undefined && present.name !== desired.properties.displayName)
        throw new Fault("StateConflict", "could not change the principal: its name is fixed", { retry: "never" });
      const made = present ?? {
        principalId,
        clientId: random.uuid(),
        kind: "servicePrincipal" as const,
        name: desired.properties.displayName,
      };
      if (present === undefined) await principals.add(made, undefined);
      return { kind: "answered", body: await show(call.id.parentText, made), isNew: present === undefined };
    },
    onDelete: async (call) => {
      await principals.remove(call.id.name.toLowerCase());
      return { kind: "done" };
    },
    source: principalSource({
      find,
      list: async (after, countMax) => await principals.listServices(after, countMax),
      idOf: ({ principalId }) => principalId,
      show,
    }),
    actions: {
      addCredential: defineAction({ body: credentialShape, run: async (call, body) => await addCredential(dependencies, call, body) }),
      removeCredential: defineAction({
        body: z.strictObject({ credentialId: z.uuid() }),
        run: async (call, { credentialId }) => {
          const isGone = await credentials.remove(call.id.name.toLowerCase(), credentialId.toLowerCase());
          if (!isGone)
            throw new Fault("NotFound", "could not remove the credential: the principal has none with this id", {
              evidence: { credentialId },
            });
          return { kind: "done" };
        },
      }),
    },
  });
}

async function addCredential(
  { credentials, random, clock }: Dependencies,
  call: ArmCall,
  wanted: z.infer<typeof credentialShape>,
): Promise<ActionOutcome> {
  const { certificatePem, expiresAt } = wanted;
  const lifeMs = fromTimestamp(expiresAt) - clock.nowMs();
  if (lifeMs <= 0 || lifeMs > lifeMsMax)
    throw new Fault("InputInvalid", "could not add the credential: it must end in the future, and within two years", {
      evidence: { expiresAt },
    });
  const [credentialId, principalId] = [random.uuid(), call.id.name.toLowerCase()];
  if (certificatePem !== undefined) {
    await credentials.addCertificate({ credentialId, principalId, pem: certificatePem, expiresAt });
    return { kind: "done", body: { credentialId, kind: "certificate", expiresAt } };
  }
  const secret = Buffer.from(random.bytes(secretBytes)).toString("base64url");
  await credentials.addSecret({
    credentialId,
    principalId,
    secretHash: createHash("sha256").update(secret, "utf8").digest("hex"),
    expiresAt,
  });
  return { kind: "done", body: { credentialId, kind: "secret", expiresAt, secret } }; // The only time that it is shown.
}

function toBody(scope: string, principal: Principal, credentials: readonly Credential[]): JsonObject {
  const { principalId, clientId, name } = principal;
  const shown = credentials.map(({ credentialId, kind, expiresAt, createdAt, thumbprint }) => ({
    credentialId,
    kind,
    expiresAt,
    createdAt,
    ...(thumbprint === undefined ? {} : { thumbprint }),
  }));
  const properties = { displayName: name, principalId, clientId, credentials: shown };
  return { id: `${scope}/providers/${typeName}/${principalId}`, name: principalId, type: typeName, properties };
}
