// Requests signed with an account key, checked as the service describes it ("Authorize with Shared Key").

import { createHmac } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { fromTimestamp } from "../../base/clock.ts";
import { isSame } from "./sas.ts";

/** A signed request is good for this long on either side of its time. */
const skewMsMax = 15 * 60_000;

/** Headers that are signed by value only, in this order. */
const signedHeaders = [
  "content-encoding",
  "content-language",
  "content-length",
  "content-md5",
  "content-type",
  "date",
  "if-modified-since",
  "if-match",
  "if-none-match",
  "if-unmodified-since",
  "range",
] as const;

export interface SignedRequest {
  readonly method: string;
  /** Path as it was sent, still encoded. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  readonly account: string;
  readonly keys: readonly Uint8Array[];
  readonly nowMs: number;
}

/** Undefined when the signature is good; else why not. */
export function refuseSharedKey(request: SignedRequest): string | undefined {
  const match = /^SharedKey ([^:]+):([A-Za-z0-9+/=]+)$/.exec(request.headers.authorization ?? "");
  if (match === null) return "the authorization header has another form";
  if (match[1] !== request.account) return "the signature is of another account";
  const signedAtMs = fromTimestamp(textOf(request.headers["x-ms-date"]) || textOf(request.headers.date));
  if (!(Math.abs(request.nowMs - signedAtMs) <= skewMsMax)) return "the request's time is too far from now";
  const given = Buffer.from(match[2] ?? "", "base64");
  const text = textToSign(request);
  return request.keys.some((key) => isSame(createHmac("sha256", key).update(text, "utf8").digest(), given))
    ? undefined
    : "the signature does not match";
}

function textToSign(request: SignedRequest): string {
  const { headers } = request;
  const values = signedHeaders.map((name) => {
    const value = textOf(headers[name]);
    if (name === "content-length") return value === "0" ? "" : value;
    return name === "date" && headers["x-ms-date"] !== undefined ? "" : value;
  });
  const ownHeaders = Object.keys(headers)
    .filter((name) => name.startsWith("x-ms-"))
    .sort()
    .map((name) => `${name}:${textOf(headers[name]).trim()}\n`);
  const names = [...new Set([...request.query.keys()].map((name) => name.toLowerCase()))].sort();
  const resource = names.map((name) => {
    const given = [...request.query].filter(([each]) => each.toLowerCase() === name).map(([, value]) => value);
    return `\n${name}:${given.sort().join(",")}`;
  });
  return `${request.method}\n${values.join("\n")}\n${ownHeaders.join("")}/${request.account}${request.path}${resource.join("")}`;
}

function textOf(value: string | readonly string[] | undefined): string {
  return typeof value === "string" ? value : (value ?? []).join(",");
}
