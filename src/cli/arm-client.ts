// Speaks Azure Resource Manager's REST dialect to a hub: token, requests, pages, long-running operations.

import { z } from "zod";
import type { Clock } from "../base/clock.ts";
import { Fault, fromReport } from "../contract/errors.ts";
import { faultReportShape } from "../contract/shapes.ts";
import { fetchAccessToken, type AccessToken } from "./access-token.ts";
import { openHubConnection, type ArmResponse, type HubConnection } from "./hub-connection.ts";
import type { HubFacts, Profile } from "./profile.ts";

const apiVersion = "2025-08-01";
/** Longest time that one operation is waited for. */
const operationWaitMsMax = 2 * 3600_000;
const pageCountMax = 1000;

const errorEnvelopeShape = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    additionalInfo: z.array(z.object({ type: z.string(), info: z.unknown() })).optional(),
  }),
});
const operationShape = z.object({
  status: z.string(),
  percentComplete: z.number().optional(),
  properties: z.unknown().optional(),
  error: errorEnvelopeShape.shape.error.optional(),
});
const pageShape = z.object({ value: z.array(z.unknown()), nextLink: z.string().optional() });

export interface OperationProgress {
  readonly status: string;
  readonly percent?: number;
}

/** One signed-in session with a hub. */
export class ArmClient implements AsyncDisposable {
  readonly #profile: Profile;
  readonly #clock: Clock;
  readonly #connection: HubConnection;
  #token: AccessToken | undefined;

  constructor(options: { readonly profile: Profile; readonly clock: Clock }) {
    this.#profile = options.profile;
    this.#clock = options.clock;
    this.#connection = openHubConnection(options.profile);
  }

  /** "/subscriptions/…/resourceGroups/…" of the profile. */
  get groupPath(): string {
    return `/subscriptions/${this.#profile.subscriptionId}/resourceGroups/${this.#profile.resourceGroup}`;
  }

  get subscriptionPath(): string {
    return `/subscriptions/${this.#profile.subscriptionId}`;
  }

  /** What another sign-in to this hub has to know. */
  get hub(): HubFacts {
    const { managementUrl, loginUrl, tenantId, subscriptionId, caPem } = this.#profile;
    return { managementUrl, loginUrl, tenantId, subscriptionId, ...(caPem === undefined ? {} : { caPem }) };
  }

  get location(): string {
    return this.#profile.location;
  }

  /** The hub's domain, from its management name. */
  get domain(): string {
    return new URL(this.#profile.managementUrl).hostname.replace(/^management\./, "");
  }

  async get(path: string): Promise<unknown> {
    return (await this.#call("GET", path)).body;
  }

  /** The resource, or undefined when there is none. */
  async find(path: string): Promise<unknown> {
    try {
      return await this.get(path);
    } catch (error) {
      if (error instanceof Fault && error.code === "NotFound") return undefined;
      throw error;
    }
  }

  /** All items of a list, over its pages. */
  async list(path: string): Promise<readonly unknown[]> {
    const items: unknown[] = [];
    let next: string | undefined = path;
    for (let page = 0; next !== undefined && page < pageCountMax; page++) {
      const parsed = pageShape.parse(await this.get(next));
      items.push(...parsed.value);
      next = parsed.nextLink;
    }
    return items;
  }

  /** Sends a change and waits until it is done; answers the final resource or result. */
  async change(
    method: "PUT" | "PATCH" | "POST" | "DELETE",
    path: string,
    body?: unknown,
    onProgress?: (progress: OperationProgress) => void,
  ): Promise<unknown> {
    const response = await this.#call(method, path, body);
    const operationUrl = headerText(response, "azure-asyncoperation");
    if (operationUrl === undefined) return response.body;
    return await this.#waitForOperation(operationUrl, { path, method }, onProgress);
  }

  /** Sends a change and returns at once with the name of its job, for those who wait elsewhere. */
  async begin(method: "PUT" | "POST" | "DELETE", path: string, body?: unknown): Promise<ArmResponse> {
    return await this.#call(method, path, body);
  }

  /** Content at a signed address, in order. HubUnreachable when the line breaks, the hub's own fault where it refuses. */
  async download(url: string, take: (piece: Uint8Array) => Promise<void>): Promise<void> {
    const response = await this.#connection.receive(new URL(url), take);
    if (response.status >= 400) throw faultOf(errorOf(response, `GET ${new URL(url).pathname.slice(0, 40)}`));
  }

  /** Begins a WebSocket at an address that a call answered. */
  dial(url: string, protocol: string): ReturnType<HubConnection["dial"]> {
    return this.#connection.dial(new URL(url), protocol);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }

  async #waitForOperation(
    url: string,
    origin: { readonly path: string; readonly method: string },
    onProgress?: (progress: OperationProgress) => void,
  ): Promise<unknown> {
    const endsAtMs = this.#clock.monotonicMs() + operationWaitMsMax;
    for (;;) {
      const response = await this.#call("GET", url);
      const operation = operationShape.parse(response.body);
      onProgress?.({
        status: operation.status,
        ...(operation.percentComplete === undefined ? {} : { percent: operation.percentComplete }),
      });
      switch (operation.status) {
        case "Succeeded":
          return operation.properties ?? (origin.method === "PUT" || origin.method === "PATCH" ? await this.get(origin.path) : undefined);
        case "Failed":
        case "Canceled":
          throw faultOf(operation.error ?? { code: "Internal", message: `the operation ended as ${operation.status}` });
        default:
          if (this.#clock.monotonicMs() > endsAtMs)
            throw new Fault("StateConflict", "waited too long for an operation", {
              evidence: { operation: url, status: operation.status },
            });
          await this.#clock.sleep(retryAfterMs(response));
      }
    }
  }

  async #call(method: "GET" | "PUT" | "PATCH" | "POST" | "DELETE", pathOrUrl: string, body?: unknown): Promise<ArmResponse> {
    const url = new URL(pathOrUrl, this.#profile.managementUrl);
    if (!url.searchParams.has("api-version")) url.searchParams.set("api-version", apiVersion);
    const token = await this.#accessToken();
    const response = await this.#connection.send(url, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (response.status >= 400) throw faultOf(errorOf(response, `${method} ${url.pathname}`));
    return response;
  }

  async #accessToken(): Promise<string> {
    if (this.#token !== undefined && this.#token.expiresAtMs > this.#clock.nowMs() + 60_000) return this.#token.text;
    const token = await fetchAccessToken({ profile: this.#profile, connection: this.#connection, clock: this.#clock });
    this.#token = token;
    return token.text;
  }
}

function headerText(response: ArmResponse, name: string): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function retryAfterMs(response: ArmResponse): number {
  const seconds = Number(headerText(response, "retry-after") ?? "1");
  return Number.isFinite(seconds) ? Math.min(30_000, Math.max(200, seconds * 1000)) : 1000;
}

function errorOf(response: ArmResponse, what: string): z.infer<typeof errorEnvelopeShape>["error"] {
  const parsed = errorEnvelopeShape.safeParse(response.body);
  return parsed.success ? parsed.data.error : { code: "Internal", message: `${what} was answered with ${response.status}` };
}

/** The hub puts the whole fault into additionalInfo; without it the envelope's code and message remain. */
function faultOf(error: z.infer<typeof errorEnvelopeShape>["error"]): Fault {
  for (const { info } of error.additionalInfo ?? []) {
    const report = faultReportShape.safeParse(info);
    if (report.success) return fromReport(report.data);
  }
  return new Fault(error.code === "ResourceNotFound" || error.code === "NotFound" ? "NotFound" : "Internal", error.message, {
    evidence: { code: error.code },
  });
}
