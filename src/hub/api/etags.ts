// Entity tags: conditions of a call against what is stored, and tags for answers that no table keeps.

import { createHash } from "node:crypto";
import { ArmFault } from "./arm-errors.ts";

export interface Conditions {
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
}

/** Whether one of a header's tags is this one; "*" is any tag. RFC 9110 compares If-None-Match weakly; here both are. */
export function namesEtag(header: string, etag: string | undefined): boolean {
  if (etag === undefined) return false;
  const tags = header.split(",").map((tag) => toOpaque(tag));
  return tags.includes("*") || tags.includes(toOpaque(etag));
}

/** Throws PreconditionFailed (412) unless the state is the one that the caller names. */
export function requireConditions({ ifMatch, ifNoneMatch }: Conditions, path: string, etag: string | undefined): void {
  const isAsExpected = (ifMatch === undefined || namesEtag(ifMatch, etag)) && (ifNoneMatch === undefined || !namesEtag(ifNoneMatch, etag));
  if (isAsExpected) return;
  throw new ArmFault(
    "PreconditionFailed",
    "PreconditionFailed",
    `could not change ${path}: it is not in the state that the caller expects`,
    {
      evidence: { presentEtag: etag ?? "none", expectedEtag: ifMatch ?? "none", refusedEtag: ifNoneMatch ?? "none" },
      target: ifMatch === undefined ? "If-None-Match" : "If-Match",
    },
  );
}

/** For resources that are made of other tables' rows: equal answers have equal tags. */
export function etagOf(body: unknown): string {
  return `W/"${createHash("sha256").update(JSON.stringify(body)).digest("base64url").slice(0, 22)}"`;
}

/** Whether etagOf made it, and not the table of resources. */
export function isComputed(etag: string): boolean {
  return etag.startsWith("W/");
}

/** Clients send tags with and without quotes and W/. */
function toOpaque(tag: string): string {
  return tag.trim().replace(/^W\//, "").replaceAll('"', "");
}
