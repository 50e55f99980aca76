// Calls to the hub through the vault's private names: JSON with the client certificate; refusals come back as their Fault.

import { request, type Dispatcher } from "undici";
import { z } from "zod";
import { Fault, fromReport } from "../../contract/errors.ts";
import { applianceRoutes, type PrivateService } from "../../contract/appliance-protocol.ts";
import { faultReportShape } from "../../contract/shapes.ts";

const answerBytesMax = 16 << 20;
const callTimeoutMs = 60_000;

export type HubRoute = keyof typeof applianceRoutes;

export interface HubClient {
  /** Throws the hub's Fault as it was given, or HubUnreachable. */
  call<T>(route: HubRoute, body: unknown, shape: z.ZodType<T>, signal?: AbortSignal): Promise<T>;
}

export interface HubClientOptions {
  readonly services: Readonly<Partial<Record<PrivateService, string>>>;
  readonly port: number;
  /** Asked at each call. */
  readonly dispatcher: () => Dispatcher;
}

export const emptyAnswer = z.looseObject({});

export function createHubClient({ services, port, dispatcher }: HubClientOptions): HubClient {
  return {
    call: async (route, body, shape, signal) => {
      const { service, path } = applianceRoutes[route];
      const host = services[service];
      if (host === undefined)
        throw new Fault("InputInvalid", `the registration key names no host for the service ${service}`, { evidence: { service } });
      const { status, text } = await post({ url: `https://${host}:${port}${path}`, body, dispatcher: dispatcher() }, signal);
      const value = parseJson(text);
      if (status === 200) {
        const parsed = shape.safeParse(value);
        if (parsed.success) return parsed.data;
        const problems = parsed.error.issues.slice(0, 10).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
        throw new Fault("Internal", `the hub's answer to ${route} does not fit`, { evidence: { host, problems } });
      }
      const report = faultReportShape.safeParse(value);
      if (report.success) throw fromReport(report.data);
      throw new Fault("HubUnreachable", `something other than the hub answered at ${host}`, { evidence: { host, path, status } });
    },
  };
}

async function post(
  { url, body, dispatcher }: { readonly url: string; readonly body: unknown; readonly dispatcher: Dispatcher },
  signal?: AbortSignal,
): Promise<{ readonly status: number; readonly text: string }> {
  const deadline = AbortSignal.timeout(callTimeoutMs);
  try {
    const response = await request(url, {
      method: "POST",
      dispatcher,
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of response.body) {
      const part = Buffer.from(chunk as Uint8Array); // undici gives bytes.
      bytes += part.length;
      if (bytes > answerBytesMax) throw new Error("the answer is too large");
      chunks.push(part);
    }
    return { status: response.statusCode, text: Buffer.concat(chunks).toString("utf8") };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Fault) throw error;
    if (error instanceof Error && error.cause instanceof Fault) throw error.cause;
    const evidence = { url, reason: error instanceof Error ? error.message : String(error) };
    throw new Fault("HubUnreachable", `could not reach the hub at ${new URL(url).host}`, { evidence, cause: error });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The caller judges it together with the status.
  }
}
