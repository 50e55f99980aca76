// What the audit trail says of a write: rights first, then the begin row, then the work; the end row tells how it went.

import { createHash } from "node:crypto";
import { asFault } from "../../contract/errors.ts";
import type { Authorize } from "../auth/roles.ts";
import type { AuditEnd, AuditTrail } from "../db/audit.ts";
import type { JsonObject } from "../db/resources.ts";
import type { ArmAnswer } from "./arm-call.ts";
import type { ArmCall } from "./resource-type.ts";

const changedNamesMax = 50;
/** Differ after every write, so they tell nothing. */
const restlessNames = new Set(["etag", "properties.provisioningState"]);

export interface AuditedWork {
  readonly call: ArmCall;
  readonly action: string;
  /** The resource as readers see it before the write; undefined when there is none. */
  readonly before?: () => Promise<JsonObject | undefined>;
  readonly work: () => Promise<ArmAnswer>;
}

/** Documents are only those that any reader of the resource gets, never bodies of requests; the trail keeps digests and names of them. */
export async function audited(
  hub: { readonly audit: AuditTrail; readonly authorize: Authorize },
  { call, action, before, work }: AuditedWork,
): Promise<ArmAnswer> {
  const { principalId, name: principalName } = call.caller;
  const subject = { principalId, principalName, action, resourceId: call.id.text, correlationId: call.correlationId };
  try {
    await hub.authorize(call, action, call.id);
  } catch (error) {
    await hub.audit.deny(subject);
    throw error;
  }
  const old = await before?.();
  const row = await hub.audit.begin({ ...subject, ...(old === undefined ? {} : { beforeDigest: digest(old) }) });
  let answer: ArmAnswer;
  try {
    answer = await work();
  } catch (error) {
    await row.end({ outcome: asFault(error, action).code });
    throw error;
  }
  await row.end({ outcome: String(answer.status), ...operationOf(answer), ...(before === undefined ? {} : changeOf(old, answer.body)) });
  return answer;
}

function operationOf(answer: ArmAnswer): Pick<AuditEnd, "operationId"> {
  const path = answer.headers?.["azure-asyncoperation"]?.split("?", 1)[0];
  const operationId = path?.split("/").at(-1);
  return operationId === undefined ? {} : { operationId };
}

function changeOf(before: JsonObject | undefined, answered: unknown): Pick<AuditEnd, "afterDigest" | "changed"> {
  if (!isObject(answered)) return {};
  const [old, present] = [flatten(before ?? {}), flatten(answered)];
  const names = [...new Set([...old.keys(), ...present.keys()])];
  const changed = names.filter((name) => !restlessNames.has(name) && old.get(name) !== present.get(name));
  return { afterDigest: digest(answered), changed: changed.slice(0, changedNamesMax) };
}

/** Names two levels deep: "tags", "properties.friendlyName". */
function flatten(document: JsonObject): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const [name, value] of Object.entries(document))
    if (name === "properties" && isObject(value))
      for (const [inner, each] of Object.entries(value)) names.set(`properties.${inner}`, canonical(each));
    else names.set(name, canonical(value));
  return names;
}

function digest(document: JsonObject): string {
  return createHash("sha256").update(canonical(document), "utf8").digest("hex");
}

/** JSON with sorted names: equal documents have equal texts. */
function canonical(value: unknown): string {
  const sorted = (_name: string, each: unknown): unknown =>
    isObject(each) ? Object.fromEntries(Object.entries(each).toSorted(([left], [right]) => (left < right ? -1 : 1))) : each;
  return JSON.stringify(value, sorted) ?? "";
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
