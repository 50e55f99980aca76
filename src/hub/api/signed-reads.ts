// Short-lived signed addresses for texts that a client fetches without a token, as Azure gives them for boot logs.

import { createHmac, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { SecretStore } from "../db/secrets.ts";

export interface SignedReads {
  /** Says how texts of a kind are read; undefined: there is none of that name. */
  offer(kind: string, read: (name: string) => Promise<string | undefined>): void;
  /** As offer, of content that is sent as it is read; byte `from` on. */
  offerStream(kind: string, open: (name: string, from: number, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>): void;
  /** The address of one text, good for this long. It is a secret. */
  addressOf(wanted: {
    readonly origin: string;
    readonly kind: string;
    readonly name: string;
    readonly lifeSeconds: number;
  }): Promise<string>;
  /** Fault Forbidden unless path and query are those of an address that is still good. */
  read(
    path: string,
    query: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<{ readonly kind: "text"; readonly text: string } | { readonly kind: "bytes"; readonly bytes: AsyncIterable<Uint8Array> }>;
}

export const signedPrefix = "/signed/";
const keyBytes = 32;

/** The key is in the database, so that every hub of it reads what one has signed. */
export function createSignedReads(hub: { readonly secrets: SecretStore; readonly clock: Clock; readonly random: Random }): SignedReads {
  const streams = new Map<string, Parameters<SignedReads["offerStream"]>[1]>();
  const readers = new Map<string, (name: string) => Promise<string | undefined>>();
  const signatureOf = async (path: string, expiresAtMs: number): Promise<Buffer> => {
    const key = await hub.secrets.getOrCreate("hub", "signedReads", () => hub.random.bytes(keyBytes));
    return createHmac("sha256", key).update(`${path}\n${expiresAtMs}`, "utf8").digest();
  };
  return {
    offer: (kind, read) => void readers.set(kind, read),
    offerStream: (kind, open) => void streams.set(kind, open),
    addressOf: async ({ origin, kind, name, lifeSeconds }) => {
      const path = `${signedPrefix}${kind}${name}`;
      const expiresAtMs = hub.clock.nowMs() + lifeSeconds * 1000;
      const signature = (await signatureOf(path, expiresAtMs)).toString("base64url");
      return `${origin}${encodeURI(path)}?se=${expiresAtMs}&sig=${signature}`;
    },
    read: async (path, query, signal) => {
      const expiresAtMs = Number(query["se"]);
      const given = Buffer.from(query["sig"] ?? "", "base64url");
      const expected = await signatureOf(path, expiresAtMs);
      const isSigned = given.length === expected.length && timingSafeEqual(given, expected);
      if (!isSigned || !(hub.clock.nowMs() < expiresAtMs))
        throw new Fault("Forbidden", `could not read the text: its address is ${isSigned ? "too old" : "not signed by this hub"}`, {
          action: "ask for a new address",
        });
      const kind = path.slice(signedPrefix.length).split("/", 1)[0] ?? "";
      const name = path.slice(signedPrefix.length + kind.length);
      const stream = streams.get(kind);
      if (stream !== undefined) return { kind: "bytes", bytes: await stream(name, beginOf(query["from"]), signal) };
      const text = await readers.get(kind)?.(name);
      if (text === undefined) throw new Fault("NotFound", "could not read the text: what it belonged to is gone");
      return { kind: "text", text };
    },
  };
}

/** A download that broke goes on from there; the beginning is no part of what is signed. */
function beginOf(text: string | undefined): number {
  const from = text === undefined ? 0 : Number(text);
  if (Number.isSafeInteger(from) && from >= 0) return from;
  throw new Fault("InputInvalid", "could not read: from is no byte to begin at", { evidence: { from: text ?? "" } });
}
