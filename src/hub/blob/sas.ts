// Shared access signatures, made and checked as the service describes them ("Create a service SAS", "Create an account SAS").

import { createHmac, timingSafeEqual } from "node:crypto";
import { BlockList, isIPv4 } from "node:net";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";

/** What a signature may allow, in the order that the text must have. */
const permissionOrder = ["r", "c", "w", "d", "l"];
export type BlobPermission = "read" | "create" | "write" | "delete" | "list";
const permissionLetters: Readonly<Record<BlobPermission, string>> = { read: "r", create: "c", write: "w", delete: "d", list: "l" };
export type SasLevel = "service" | "container" | "object";
const levelLetters: Readonly<Record<SasLevel, string>> = { service: "s", container: "c", object: "o" };

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
  const text = makeServiceSas({
    account: sas.account,
    key: sas.key,
    container: sas.container,
    fields: {
      sr: "c",
      sp: permissionOrder.filter((letter) => letters.includes(letter)).join(""),
      ...(sas.startsAtMs === undefined ? {} : { st: signedTime(sas.startsAtMs) }),
      se: signedTime(sas.expiresAtMs),
      spr: "https",
    },
  });
  return `?${text}`;
}

/** Fields of the query by their names there, as whoever asks for the signature wants them; what the hub cannot honour was refused before. */
export interface WantedSas {
  readonly account: string;
  /** Secret. */
  readonly key: Uint8Array;
  readonly fields: Readonly<Record<string, string>>;
}

/** The query text. It is a secret. */
export function makeServiceSas(sas: WantedSas & { readonly container: string; readonly blob?: string }): string {
  const query = new URLSearchParams({ sv: madeVersion, ...sas.fields });
  query.set("sig", signatureOf(sas.key, serviceText(query, { ...sas, name: sas.blob ?? "" })).toString("base64"));
  return query.toString();
}

/** The query text. It is a secret. */
export function makeAccountSas(sas: WantedSas): string {
  const query = new URLSearchParams({ sv: madeVersion, ...sas.fields });
  query.set("sig", signatureOf(sas.key, accountText(query, sas.account)).toString("base64"));
  return query.toString();
}

export interface SasRequest {
  readonly query: URLSearchParams;
  readonly account: string;
  readonly container: string;
  /** Of the blob; empty for calls on the container. */
  readonly name: string;
  readonly keys: readonly Uint8Array[];
  readonly level: SasLevel;
  /** Any of these allows the call. None: a signature of the container never does. */
  readonly permission: readonly BlobPermission[];
  /** As permission, for signatures of the account. */
  readonly accountPermission: readonly BlobPermission[];
  readonly nowMs: number;
  readonly isEncrypted: boolean;
  readonly address: string;
}

/** refused: the signature is not good here and now. insufficient: it is good, and does not allow this. */
export type SasVerdict =
  | { readonly kind: "allowed"; readonly canReplace: boolean }
  | { readonly kind: "refused"; readonly reason: string }
  | { readonly kind: "insufficient" };

/** Checks a signature of either kind. */
export function checkSas(request: SasRequest): SasVerdict {
  const { query } = request;
  const isOfAccount = query.has("ss") || query.has("srt");
  const reason = refuseForm(query, isOfAccount) ?? refuseSignature(request, isOfAccount) ?? refuseMoment(request);
  if (reason !== undefined) return { kind: "refused", reason };
  const isCovered =
    !isOfAccount || ((query.get("ss") ?? "").includes("b") && (query.get("srt") ?? "").includes(levelLetters[request.level]));
  const letters = query.get("sp") ?? "";
  const wanted = isOfAccount ? request.accountPermission : request.permission;
  if (!isCovered || !wanted.some((permission) => letters.includes(permissionLetters[permission]))) return { kind: "insufficient" };
  return { kind: "allowed", canReplace: letters.includes(permissionLetters.write) };
}

function refuseForm(query: URLSearchParams, isOfAccount: boolean): string | undefined {
  if ([...query.keys()].some((name) => query.getAll(name).length > 1)) return "a field is given twice";
  const version = query.get("sv") ?? "";
  if (!/^\d{4}-\d{2}-\d{2}$/.test(version) || version < oldestVersion) return "the signed version is not known";
  if (query.has("si")) return "stored policies are not known here";
  if (isOfAccount) return query.has("sr") ? "it is of an account and of a container at once" : undefined;
  const resource = query.get("sr");
  return resource === "c" || resource === "b" ? undefined : "only signatures of an account, a container or a blob are known here";
}

function refuseSignature(request: SasRequest, isOfAccount: boolean): string | undefined {
  const { query } = request;
  const isOfBlob = query.get("sr") === "b";
  if (isOfBlob && request.name === "") return "the signature is of a blob";
  const given = Buffer.from(query.get("sig") ?? "", "base64");
  const text = isOfAccount ? accountText(query, request.account) : serviceText(query, { ...request, name: isOfBlob ? request.name : "" });
  return request.keys.some((key) => isSame(signatureOf(key, text), given)) ? undefined : "the signature does not match";
}

function refuseMoment({ query, nowMs, isEncrypted, address }: SasRequest): string | undefined {
  const startsAtMs = query.has("st") ? fromTimestamp(query.get("st") ?? "") : 0;
  if (!(nowMs >= startsAtMs)) return "the signature is not valid yet";
  if (!(nowMs < fromTimestamp(query.get("se") ?? ""))) return "the signature has expired";
  const protocol = query.get("spr") ?? "https,http";
  if (protocol !== "https,http" && !(protocol === "https" && isEncrypted)) return "the signature is for HTTPS only";
  return query.has("sip") && !isInRange(address, query.get("sip") ?? "") ? "the caller's address is not in the signed range" : undefined;
}

/** Whether an address is the one, or between the two, that a signature names. */
function isInRange(address: string, range: string): boolean {
  const [first = "", last = first] = range.split("-");
  const plain = address.replace(/^::ffff:/i, "");
  if (!isIPv4(plain) || !isIPv4(first) || !isIPv4(last)) return false;
  const list = new BlockList();
  try {
    list.addRange(first, last);
  } catch {
    return false; // The range ends before it begins: nobody is in it.
  }
  return list.check(plain);
}

function serviceText(query: URLSearchParams, of: { readonly account: string; readonly container: string; readonly name: string }): string {
  const field = (name: string): string => query.get(name) ?? "";
  return [
    field("sp"),
    field("st"),
    field("se"),
    `/blob/${of.account}/${of.container}${of.name === "" ? "" : `/${of.name}`}`,
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

function accountText(query: URLSearchParams, account: string): string {
  const fields = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses"].map((name) => query.get(name) ?? "");
  return [account, ...fields, ""].join("\n");
}

function signatureOf(key: Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text, "utf8").digest();
}

export function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

/** Whole seconds, as the service writes them. */
export function signedTime(timeMs: number): string {
  return toTimestamp(timeMs).replace(/\.\d{3}Z$/, "Z");
}
