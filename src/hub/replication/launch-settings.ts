// How the clone of a machine is made ready, in words that Azure has none for: addresses of its cards, a serial console, keys of its encrypted disks.

import { sql } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { addressingProblem } from "../../landing/check-spec.ts";
import type { NicAddressing } from "../../landing/target.ts";
import { ArmFault } from "../api/arm-errors.ts";
import { openSecretStore, type SecretStore } from "../db/secrets.ts";
import type { Queryable } from "../jobs/job.ts";

const keysMax = 8;
const keyBytesMax = 8_192;
const keyCharactersMax = Math.ceil(keyBytesMax / 3) * 4;
const cardsMax = 64;
const secretName = "unlockKeys";

const addressText = z.string().max(40);
export const addressingShape = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("keep") }),
  z.strictObject({ kind: z.literal("dhcp") }),
  z.strictObject({
    kind: z.literal("fixed"),
    /** "10.0.0.5/24". */
    address: addressText,
    gateway: addressText.exactOptional(),
    nameServers: z.array(addressText).max(4).readonly().exactOptional(),
  }),
]);
export const nicAddressingShape = z.array(z.strictObject({ nicId: z.string().max(255), addressing: addressingShape })).max(cardsMax);
export type NicAddressings = z.infer<typeof nicAddressingShape>;

/** Base64 of a passphrase's or a key file's bytes. They are taken, and never answered. */
export const unlockKeysShape = z
  .array(
    z
      .string()
      .min(1)
      .max(keyCharactersMax)
      .regex(/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/, "a key is sent as base64"),
  )
  .max(keysMax);

/** Ours, for one call: in place of the machine's own settings. */
export const launchSettingsInput = {
  hasSerialConsole: z.boolean().optional(),
  /** Cards that are not named keep what the machine's own settings say of them. */
  nicAddressing: nicAddressingShape.optional(),
  unlockKeys: unlockKeysShape.optional(),
};

/** Ours, of the machine. Keys replace those that were set before; none at all removes them. */
export const itemLaunchInput = {
  ...launchSettingsInput,
  /** In tests; what nicAddressing says unless told. */
  tfoNicAddressing: nicAddressingShape.optional(),
};

/** What is kept with the item; the keys are among the hub's secrets. */
export const itemLaunchShape = {
  hasSerialConsole: z.boolean().optional(),
  nicAddressing: nicAddressingShape.default([]),
  tfoNicAddressing: nicAddressingShape.default([]),
  unlockKeyCount: z.number().default(0),
};

/** What is kept with a job. */
export const jobLaunchShape = {
  hasSerialConsole: z.boolean().optional(),
  nicAddressing: nicAddressingShape.optional(),
};
export type JobLaunch = { readonly [Name in keyof typeof jobLaunchShape]?: z.infer<(typeof jobLaunchShape)[Name]> };

/** The part of a call that goes into its job: everything but the keys. */
export function jobLaunchOf({ hasSerialConsole, nicAddressing }: JobLaunch): JobLaunch {
  return {
    ...(hasSerialConsole === undefined ? {} : { hasSerialConsole }),
    ...(nicAddressing === undefined ? {} : { nicAddressing }),
  };
}

/** Fault InputInvalid for a card that is not there or does not land, one that is named twice, an address that cannot be or is given twice. */
export function requireAddressing(
  addressings: NicAddressings,
  cards: { readonly known: readonly string[]; readonly left: readonly string[] },
  at: string,
): void {
  const seen = new Set<string>();
  const addresses = new Set<string>();
  for (const [index, { nicId, addressing }] of addressings.entries()) {
    const refuse = (field: string, reason: string, evidence: object): never => {
      const target = `${at}.${index}.${field}`;
      throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not set ${target}: ${reason}`, {
        evidence: { ...evidence, target },
        target,
      });
    };
    if (!cards.known.includes(nicId))
      refuse("nicId", cards.known.length === 0 ? "the machine has not told its cards yet" : "the machine has no such card", {
        given: nicId,
        known: cards.known,
      });
    if (cards.left.includes(nicId)) refuse("nicId", "this card is left out when the machine lands", { given: nicId });
    if (seen.has(nicId)) refuse("nicId", "the card is named twice", { given: nicId });
    seen.add(nicId);
    const problem = addressingProblem(addressing);
    if (problem !== undefined) refuse("addressing", problem, { nicId });
    const host = addressing.kind === "fixed" ? addressing.address.replace(/\/.*$/, "") : undefined;
    if (host !== undefined && addresses.has(host)) refuse("addressing", "two cards would have one address", { given: host });
    if (host !== undefined) addresses.add(host);
  }
}

/** Later ones win over earlier ones. */
export function addressingOf(guestName: string, ...wishes: readonly (NicAddressings | undefined)[]): NicAddressing | undefined {
  return wishes.flatMap((wish) => wish?.filter(({ nicId }) => nicId === guestName) ?? []).at(-1)?.addressing;
}

/** Sealed under the hub's master key, in the caller's transaction. None removes what was kept. */
export async function keepUnlockKeys(
  db: Queryable,
  { sealer }: Pick<SecretStore, "sealer">,
  ownerId: string,
  keys: readonly string[],
): Promise<void> {
  if (keys.length === 0) return await forgetUnlockKeys(db, ownerId);
  await openSecretStore({ db, sealer }).replace(ownerId, secretName, Buffer.from(JSON.stringify(keys), "utf8"));
}

export async function forgetUnlockKeys(db: Queryable, ownerId: string): Promise<void> {
  await sql`delete from secrets where owner_key = ${ownerId.toLowerCase()} and name = ${secretName}`.execute(db);
}

/** Owner of the keys that were given with one call; they go when its job has ended. */
export function jobKeysOwner(itemId: string, jobId: string): string {
  return `${itemId}/unlockingJobs/${jobId}`;
}

/** Those of the call whose job this is, else the machine's own. */
export async function findUnlockKeys(
  secrets: Pick<SecretStore, "find">,
  { itemId, jobId, ownCount }: { readonly itemId: string; readonly jobId: string; readonly ownCount: number },
): Promise<readonly Uint8Array[]> {
  const ofCall = await secrets.find(jobKeysOwner(itemId, jobId), secretName);
  const sealed = ofCall ?? (ownCount === 0 ? undefined : await secrets.find(itemId, secretName));
  if (sealed !== undefined)
    return unlockKeysShape.parse(JSON.parse(Buffer.from(sealed).toString("utf8"))).map((key) => Buffer.from(key, "base64"));
  if (ownCount === 0) return [];
  throw new Fault("StateConflict", "could not unlock the machine's disks: the keys that were set for it are gone", {
    evidence: { itemId, unlockKeyCount: ownCount },
    action: "set them again with `watari machine set`, then repeat the call",
  });
}
