// Shared access signatures for one container, made and checked as the service describes them ("Create a service SAS").

import { createHmac, timingSafeEqual } from "node:crypto";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";

/** What a signature may allow on a container, in the order that the text must have. */
const permissionOrder = ["r", "c", "w", "d", "l"];
export type BlobPermission = "read" | "create" | "write" | "delete" | "list";
const permissionLetters: Readonly<Record<BlobPermission, string>> = { read: "r", create: "c", write: "w", delete: "d", list: "l" };

/** Signed texts of older versions have other fields and are refused. */
const oldestVersion = "2020-12-06";
const madeVersion = "2021-12-02";

export interface ContainerSas {
  readonly account: string;
  /** One of the account's keys. Secret. */
  readonly key: Uint8Array;
  readonly container: string;
  readonly permissions: readonly BlobPermission[];
  readonly startsAtMs?: number;
  readonly expiresAtMs: number;
}

/** The query text with a leading "?". It is a secret. For HTTPS only. */
export function makeContainerSas(sas: ContainerSas): string {
  const letters = sas.permissions.map((permission) => permissionLetters[permission]);
  const query = new URLSearchParams({
    sv: madeVersion,
    sr: "c",
    sp: permissionOrder.filter((letter) => letters.includes(letter)).join(""),
    ...(sas.startsAtMs === undefined ? {} : { st: signedTime(sas.startsAtMs) }),
    se: signedTime(sas.expiresAtMs),
    spr: "https",
  });
  query.set("sig", signatureOf(sas.key, textToSign(query, sas.account, sas.container)).toString("base64"));
  return `?${query.toString()}`;
}

export interface SasRequest {
  readonly query: URLSearchParams;
  readonly account: string;
  readonly container: string;
  readonly keys: readonly Uint8Array[];
  readonly permission: readonly BlobPermission[];
  readonly nowMs: number;
  readonly isEncrypted: boolean;
}

/** refused: the signature is not good here and now. insufficient: it is good, and does not allow this. */
export type SasVerdict =
  | { readonly kind: "allowed" }
  | { readonly kind: "refused"; readonly reason: string }
  | { readonly kind: "insufficient" };

/** Checks a signature; one of `permission` is enough. */
export function checkContainerSas(request: SasRequest): SasVerdict {
  const { query, nowMs } = request;
  const refuse = (reason: string): SasVerdict => ({ kind: "refused", reason });
  if ([...query.keys()].some((name) => query.getAll(name).length > 1)) return refuse("a field is given twice");
  if (query.get("sr") !== "c") return refuse("only signatures of a container are known here");
  const version = query.get("sv") ?? "";
  if (!/^\d{4}-\d{2}-\d{2}$/.test(version) || version < oldestVersion) return refuse("the signed version is not known");
  if (query.has("si") || query.has("sip")) return refuse("stored policies and address ranges are not known here");
  const given = Buffer.from(query.get("sig") ?? "", "base64");
  const text = textToSign(query, request.account, request.container);
  if (!request.keys.some((key) => isSame(signatureOf(key, text), given))) return refuse("the signature does not match");
  const startsAtMs = query.has("st") ? fromTimestamp(query.get("st") ?? "") : 0;
  const expiresAtMs = fromTimestamp(query.get("se") ?? "");
  if (!(nowMs >= startsAtMs)) return refuse("the signature is not valid yet");
  if (!(nowMs < expiresAtMs)) return refuse("the signature has expired");
  const protocol = query.get("spr") ?? "https,http";
  if (protocol !== "https,http" && !(protocol === "https" && request.isEncrypted)) return refuse("the signature is for HTTPS only");
  const letters = query.get("sp") ?? "";
  return request.permission.some((permission) => letters.includes(permissionLetters[permission]))
    ? { kind: "allowed" }
    : { kind: "insufficient" };
}

function textToSign(query: URLSearchParams, account: string, container: string): string {
  const field = (name: string): string => query.get(name) ?? "";
  return [
    field("sp"),
    field("st"),
    field("se"),
    `/blob/${account}/${container}`,
    field("si"),
    field("sip"),
    field("spr"),
    field("sv"),
    field("sr"),
    "", // Snapshot time.
    field("ses"),
    field("rscc"),
    field("rscd"),
    field("rsce"),
    field("rscl"),
    field("rsct"),
  ].join("\n");
}

function signatureOf(key: Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text, "utf8").digest();
}

export function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

/** Whole seconds, as the service writes them. */
function signedTime(timeMs: number): string {
  return toTimestamp(timeMs).replace(/\.\d{3}Z$/, "Z");
}
