// The way to a hub's public names: TLS to its own authority, through a proxy or to a named address where there is no resolver.

import { isIP, type LookupFunction } from "node:net";
import { Agent, ProxyAgent, request, WebSocket, type Dispatcher } from "undici";
import { Fault } from "../contract/errors.ts";

export interface HubAddress {
  /** Authority of the hub's certificate; the system's own when absent. */
  readonly caPem?: string | undefined;
  readonly proxy?: string | undefined;
  readonly address?: string | undefined;
}

export interface ArmResponse {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

export interface HubConnection extends AsyncDisposable {
  /** Fault HubUnreachable when no answer comes. Bodies are JSON where they are. */
  send(url: URL, options: Omit<Dispatcher.RequestOptions, "path" | "origin">): Promise<ArmResponse>;
  /** Gives the content of an address piece by piece; of a refusal, its body is answered instead. */
  receive(url: URL, take: (piece: Uint8Array) => Promise<void>): Promise<ArmResponse>;
  /** Begins a WebSocket; it tells of its opening or its end by events. */
  dial(url: URL, protocol: string): WebSocket;
  /** Sends a form as OAuth wants it. */
  post(url: URL, form: Readonly<Record<string, string>>): Promise<ArmResponse>;
}

export function openHubConnection({ caPem, proxy, address }: HubAddress): HubConnection {
  const tls = caPem === undefined ? {} : { ca: caPem };
  const direct = address === undefined ? tls : { ...tls, lookup: lookupAt(address) };
  const dispatcher = proxy === undefined ? new Agent({ connect: direct }) : new ProxyAgent({ uri: proxy, requestTls: tls });
  const unreached = (url: URL, error: unknown): Fault =>
    new Fault("HubUnreachable", `could not reach ${url.host}`, {
      evidence: {
        url: `${url.origin}${url.pathname.slice(0, 200)}`,
        ...(proxy === undefined ? {} : { proxy }),
        reason: error instanceof Error ? error.message : String(error),
      },
      cause: error,
    });
  const answerOf = async (response: Dispatcher.ResponseData): Promise<ArmResponse> => {
    const text = await response.body.text();
    return { status: response.statusCode, headers: response.headers, body: text === "" ? undefined : parseBody(text) };
  };
  const send: HubConnection["send"] = async (url, options) => {
    try {
      return await answerOf(await request(url, { ...options, dispatcher }));
    } catch (error) {
      throw unreached(url, error);
    }
  };
  return {
    send,
    receive: async (url, take) => {
      let own: { readonly error: unknown } | undefined;
      try {
        const response = await request(url, { method: "GET", dispatcher });
        if (response.statusCode !== 200) return await answerOf(response);
        for await (const piece of response.body)
          await take(piece as Uint8Array).catch((error: unknown) => {
            own = { error };
            throw error;
          }); // A body without encoding gives bytes.
        return { status: response.statusCode, headers: response.headers, body: undefined };
      } catch (error) {
        throw own === undefined ? unreached(url, error) : own.error;
      }
    },
    post: async (url, form) => {
      const headers = { "content-type": "application/x-www-form-urlencoded" };
      return await send(url, { method: "POST", headers, body: new URLSearchParams(form).toString() });
    },
    dial: (url, protocol) => {
      const socket = new WebSocket(url, { protocols: [protocol], dispatcher });
      socket.binaryType = "arraybuffer";
      return socket;
    },
    [Symbol.asyncDispose]: async () => await dispatcher.close(),
  };
}

/** Answers every name with one address: the certificate proves that it is the hub's. */
function lookupAt(address: string): LookupFunction {
  const family = isIP(address);
  return (_name, options, callback) => (options.all === true ? callback(null, [{ address, family }]) : callback(null, address, family));
}

function parseBody(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text; // Not every error page is JSON; the status tells.
  }
}
