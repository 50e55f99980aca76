// Speaks to the appliance: JSON over HTTPS for control, a TLS socket for data. Trusts the pinned authority and nothing else.

import { request } from "node:https";
import { connect as connectTls, checkServerIdentity, type ConnectionOptions, type TLSSocket } from "node:tls";
import type { z } from "zod";
import { asFault, Fault, fromReport } from "../../contract/errors.ts";
import { faultReportShape } from "../../contract/shapes.ts";

/** The name in every appliance certificate, whatever address the agent dials. */
const applianceServerName = "appliance.watari.internal";
const responseBytesMax = 1 << 20;
const connectMsMax = 20_000;

export interface Trust {
  readonly authorityPem: string;
  /** Absent only while registering. */
  readonly client?: { readonly keyPem: string; readonly certificatePem: string };
}

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** By which the agent knows its appliance, whatever address it dials. */
export function tlsOptions(endpoint: Endpoint, trust: Trust): ConnectionOptions {
  return {
    host: endpoint.host,
    port: endpoint.port,
    ca: trust.authorityPem,
    minVersion: "TLSv1.3",
    servername: applianceServerName,
    ...(trust.client === undefined ? {} : { key: trust.client.keyPem, cert: trust.client.certificatePem }),
    checkServerIdentity: (_name, certificate) => {
      if (checkServerIdentity(applianceServerName, certificate) === undefined) return undefined;
      return checkServerIdentity(endpoint.host, certificate);
    },
  };
}

export interface PostOptions<T> {
  readonly endpoint: Endpoint;
  readonly trust: Trust;
  readonly path: string;
  readonly body: unknown;
  readonly shape: z.ZodType<T>;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** Sends JSON, answers the parsed JSON. A FaultReport in the answer is thrown as the Fault it is. */
export async function postJson<T>(options: PostOptions<T>): Promise<T> {
  const { status, text } = await exchange(options);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Fault("AgentProtocolBroken", `the appliance answered ${status} with something that is not JSON`, { cause: error });
  }
  if (status !== 200) {
    const report = faultReportShape.safeParse(value);
    if (report.success) throw fromReport(report.data);
    throw new Fault("AgentProtocolBroken", `the appliance answered ${status} without a fault report`, { evidence: { status } });
  }
  const parsed = options.shape.safeParse(value);
  if (!parsed.success) throw new Fault("AgentProtocolBroken", "the appliance's answer does not fit the protocol", { cause: parsed.error });
  return parsed.data;
}

async function exchange(options: PostOptions<unknown>): Promise<{ readonly status: number; readonly text: string }> {
  const body = JSON.stringify(options.body);
  const { endpoint } = options;
  return await new Promise((resolve, reject) => {
    const unreachable = (error: unknown): void => reject(unreachableBy(endpoint, error));
    const outgoing = request(
      {
        ...tlsOptions(endpoint, options.trust),
        method: "POST",
        path: options.path,
        agent: false,
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body), host: applianceServerName },
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > responseBytesMax) outgoing.destroy(new Error(`an answer over ${responseBytesMax} bytes`));
          else chunks.push(chunk);
        });
        response.once("end", () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }));
        response.once("error", unreachable);
      },
    );
    // Where nothing answers another way may: that is found out sooner than how long an answer may take.
    const isOpen = { value: false };
    outgoing.setTimeout(Math.min(connectMsMax, options.timeoutMs), () => {
      outgoing.destroy(new Error(`no answer for ${isOpen.value ? options.timeoutMs : connectMsMax} ms`));
    });
    outgoing.once("socket", (socket) =>
      socket.once("secureConnect", () => {
        isOpen.value = true;
        outgoing.setTimeout(options.timeoutMs);
      }),
    );
    outgoing.once("error", unreachable);
    outgoing.end(body);
  });
}

/** Opens the data connection. */
export async function connectData(endpoint: Endpoint, trust: Trust, signal?: AbortSignal): Promise<TLSSocket> {
  signal?.throwIfAborted();
  return await new Promise((resolve, reject) => {
    const socket = connectTls(tlsOptions(endpoint, trust));
    const give = (error: unknown): void => {
      socket.destroy();
      reject(unreachableBy(endpoint, error));
    };
    const onAbort = (): void => give(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    socket.setTimeout(connectMsMax, () => give(new Error(`no answer for ${connectMsMax} ms`)));
    socket.once("error", give);
    socket.once("secureConnect", () => {
      signal?.removeEventListener("abort", onAbort);
      socket.off("error", give);
      socket.setTimeout(0);
      socket.setNoDelay(true);
      socket.setKeepAlive(true, 30_000);
      resolve(socket);
    });
  });
}

function unreachableBy(endpoint: Endpoint, error: unknown): Fault {
  if (error instanceof Fault) return error;
  return new Fault(
    "ApplianceUnreachable",
    `could not reach the appliance at ${endpoint.host}:${endpoint.port}: ${asFault(error, "connect").message}`,
    {
      evidence: { host: endpoint.host, port: endpoint.port },
      cause: error,
    },
  );
}
