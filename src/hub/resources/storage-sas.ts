// Shared access signatures that the management API makes; what the blob service could not hold a caller to is refused, never signed.

import { z } from "zod";
import { fromTimestamp } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { defineAction, type ActionDefinition } from "../api/resource-type.ts";
import { makeAccountSas, makeServiceSas, signedTime } from "../blob/sas.ts";
import type { Resource } from "../db/resources.ts";
import type { SecretStore } from "../db/secrets.ts";
import { accountKey, type KeyName } from "./account-keys.ts";

const yearMs = 366 * 24 * 3_600_000;
/** The end of a signature is held against this; a key outlives it by being rotated. */
const lifeMsMax = 10 * yearMs;

const letters = (allowed: string, what: string): z.ZodString =>
  z
    .string()
    .min(1)
    .max(16)
    .regex(new RegExp(`^[${allowed}]+$`), `${what}: any of ${allowed}`);
const timeShape = z.iso.datetime({ offset: true });
const addressShape = z.string().regex(/^(\d{1,3}\.){3}\d{1,3}(-(\d{1,3}\.){3}\d{1,3})?$/, "an IPv4 address, or two with a hyphen between");
const commonShape = {
  signedPermission: letters("rwdlacup", "permissions"),
  signedIp: addressShape.nullish(),
  signedProtocol: z.enum(["https", "https,http"]).nullish(),
  signedStart: timeShape.nullish(),
  signedExpiry: timeShape,
  keyToSign: z.enum(["key1", "key2"]).nullish(),
};
const accountShape = z.strictObject({
  ...commonShape,
  signedServices: z.literal("b", "there is a blob service (b) and no other"),
  signedResourceTypes: letters("sco", "resource types"),
});
const overrides = ["rscc", "rscd", "rsce", "rscl", "rsct"] as const;
const overrideShape = z
  .string()
  .max(200)
  .regex(/^[\x20-\x7e]*$/, "printable characters")
  .nullish();
const noTable = z.undefined("only tables have keys of partitions and rows").optional();
const serviceShape = z.strictObject({
  ...commonShape,
  canonicalizedResource: z
    .string()
    .regex(/^\/blob\/[a-z0-9]{3,24}\/[^/?#]+(\/[^?#]+)?$/, "/blob/{account}/{container} with or without a blob"),
  signedResource: z.enum(["b", "c"], "a blob (b) or a container (c)"),
  signedIdentifier: z.undefined("stored access policies are not kept here").optional(),
  ...{ startPk: noTable, endPk: noTable, startRk: noTable, endRk: noTable },
  ...{ rscc: overrideShape, rscd: overrideShape, rsce: overrideShape, rscl: overrideShape, rsct: overrideShape },
});

interface Dependencies {
  readonly secrets: SecretStore;
  readonly random: Random;
  readonly clock: { nowMs(): number };
}

/** Whoever may make signatures of an account may as well have its keys: both rights stand in the same roles. */
export function storageSasActions(dependencies: Dependencies): Readonly<Record<string, ActionDefinition>> {
  const keyOf = async (account: Resource, name: KeyName | null | undefined): Promise<Uint8Array> =>
    await accountKey(dependencies, account.id.text, name ?? "key1");
  return {
    listAccountSas: defineAction({
      body: accountShape,
      run: async (_call, wish, account) => {
        const fields = { ss: wish.signedServices, srt: wish.signedResourceTypes, ...commonFields(dependencies, account, wish) };
        const key = await keyOf(account, wish.keyToSign);
        return { kind: "done", body: { accountSasToken: makeAccountSas({ account: account.id.name, key, fields }) } };
      },
    }),
    listServiceSas: defineAction({
      body: serviceShape,
      run: async (_call, wish, account) => {
        const [, , name = "", container = "", ...rest] = wish.canonicalizedResource.split("/");
        const blob = rest.join("/");
        if (name !== account.id.name)
          refuse(account, "the resource is of another account", { canonicalizedResource: wish.canonicalizedResource });
        if ((wish.signedResource === "b") !== (blob !== ""))
          refuse(account, "signedResource and canonicalizedResource tell of different things", {
            signedResource: wish.signedResource,
            canonicalizedResource: wish.canonicalizedResource,
          });
        const headers = Object.fromEntries(overrides.flatMap((field) => (wish[field] ? [[field, wish[field]]] : [])));
        const fields = { sr: wish.signedResource, ...commonFields(dependencies, account, wish), ...headers };
        const sas = { account: name, container, ...(blob === "" ? {} : { blob }), key: await keyOf(account, wish.keyToSign), fields };
        return { kind: "done", body: { serviceSasToken: makeServiceSas(sas) } };
      },
    }),
  };
}

type CommonWish = z.infer<z.ZodObject<typeof commonShape>>;

function commonFields({ clock }: Dependencies, account: Resource, wish: CommonWish): Readonly<Record<string, string>> {
  const expiresAtMs = fromTimestamp(wish.signedExpiry);
  const startsAtMs = wish.signedStart ? fromTimestamp(wish.signedStart) : undefined;
  if (expiresAtMs > clock.nowMs() + lifeMsMax)
    refuse(account, "it would be good for too long", { signedExpiry: wish.signedExpiry, longestDays: lifeMsMax / 86_400_000 });
  if (startsAtMs !== undefined && startsAtMs >= expiresAtMs)
    refuse(account, "it would end before it begins", { signedStart: wish.signedStart ?? "", signedExpiry: wish.signedExpiry });
  return {
    sp: wish.signedPermission,
    ...(startsAtMs === undefined ? {} : { st: signedTime(startsAtMs) }),
    se: signedTime(expiresAtMs),
    ...(wish.signedIp ? { sip: wish.signedIp } : {}),
    ...(wish.signedProtocol ? { spr: wish.signedProtocol } : {}),
  };
}

function refuse(account: Resource, reason: string, evidence: Readonly<Record<string, string | number>>): never {
  throw new Fault("InputInvalid", `could not sign for the storage account ${account.id.name}: ${reason}`, { evidence });
}
