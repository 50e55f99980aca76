// How asynchronous operations look to ARM clients: the headers of a 202 and the two addresses that it names.

import { Fault, fromReport } from "../../contract/errors.ts";
import type { Authorize } from "../auth/roles.ts";
import type { JsonObject } from "../db/resources.ts";
import type { Operation, OperationStore } from "../db/operations.ts";
import { toArmError } from "./arm-errors.ts";
import type { ArmAnswer, ArmRequest } from "./arm-call.ts";
import { parseResourceId, type ResourceId } from "./resource-id.ts";

const retryAfterSeconds = "1";
const location = "hub";

/** Azure-AsyncOperation tells the state, Location the result; both need the same rights as reading the resource. */
export function operationHeaders(
  request: { readonly origin: string; readonly query: Readonly<Record<string, string>> },
  id: ResourceId,
  operationId: string,
): Readonly<Record<string, string>> {
  const provider = id.type.split("/")[0] ?? "";
  const base = `${request.origin}/subscriptions/${id.subscriptionId}/providers/${provider}/locations/${location}`;
  const query = `?api-version=${request.query["api-version"] ?? ""}`;
  return {
    "azure-asyncoperation": `${base}/operationStatuses/${operationId}${query}`,
    location: `${base}/operationResults/${operationId}${query}`,
    "retry-after": retryAfterSeconds,
  };
}

/** Where operations are found: at the addresses that a 202 names, and at those that the vaults' client makes itself. */
const statusKinds: ReadonlySet<string> = new Set(["locations/operationstatuses", "vaults/operationstatus"]);
const resultKinds: ReadonlySet<string> = new Set(["locations/operationresults", "vaults/operationresults"]);

export interface AnsweredOperation {
  readonly what: "operationStatus" | "operationResult";
  /** Of the resource that it works on. */
  readonly type: string;
  readonly answer: ArmAnswer;
}

/** Answers a GET of an operation's status or result; undefined when the path names neither. */
export async function findOperation(
  hub: {
    readonly operations: OperationStore;
    readonly authorize: Authorize;
    /** The resource as it is answered now; undefined when it is gone. */
    readonly show: (id: ResourceId) => Promise<JsonObject | undefined>;
  },
  request: ArmRequest,
  id: ResourceId,
): Promise<AnsweredOperation | undefined> {
  const kind = id.type.split("/").slice(1).join("/").toLowerCase();
  const isStatus = statusKinds.has(kind);
  if (!isStatus && !resultKinds.has(kind)) return undefined;
  if (request.method !== "GET")
    throw new Fault("OperationNotSupported", "could not change an operation: it can only be read", { evidence: { operations: ["GET"] } });
  const operation = /^[0-9a-f-]{36}$/i.test(id.name) ? await hub.operations.find(id.name.toLowerCase()) : undefined;
  const scope = operation === undefined ? parseResourceId(`/subscriptions/${id.subscriptionId}`) : parseResourceId(operation.resourceId);
  await hub.authorize(request, `${scope.type}/read`, scope);
  if (operation === undefined)
    throw new Fault("NotFound", `could not find the operation ${id.name}: no call has answered with it`, {
      evidence: { operationId: id.name },
      action: "read the address that the header Azure-AsyncOperation or Location of a 202 names",
    });
  const { type } = scope;
  if (isStatus) return { what: "operationStatus", type, answer: toStatus(operation, id) };
  const answer = toResult(operation);
  // Clients that follow Location after a PUT or PATCH take what it answers for the resource.
  const shown = answer.status === 204 ? await hub.show(scope) : undefined;
  return { what: "operationResult", type, answer: shown === undefined ? answer : { status: 200, body: shown } };
}

function toStatus(operation: Operation, id: ResourceId): ArmAnswer {
  const isRunning = operation.status === "InProgress";
  return {
    status: 200,
    ...(isRunning ? { headers: { "retry-after": retryAfterSeconds } } : {}),
    body: {
      id: id.text,
      name: operation.operationId,
      status: operation.status,
      startTime: operation.startedAt,
      ...(operation.endedAt === undefined ? {} : { endTime: operation.endedAt }),
      percentComplete: operation.percent,
      ...(operation.result === undefined ? {} : { properties: operation.result }),
      ...(operation.fault === undefined ? {} : { error: toArmError(operation.fault) }),
    },
  };
}

// oxlint-disable-next-line typescript/consistent-return -- every status answers or throws; the compiler proves it
function toResult(operation: Operation): ArmAnswer {
  switch (operation.status) {
    case "InProgress":
      return { status: 202, headers: { "retry-after": retryAfterSeconds } };
    case "Succeeded":
      return operation.result === undefined ? { status: 204 } : { status: 200, body: operation.result };
    case "Canceled":
      throw new Fault("StateConflict", `operation ${operation.operationId} was cancelled`, { retry: "never" });
    case "Failed":
      throw operation.fault === undefined ? new Fault("Internal", "the operation failed") : fromReport(operation.fault);
  }
}
