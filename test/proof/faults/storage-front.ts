// A door before a storage account that can be made to misbehave: refuse, crawl, hang up before or after the work was done.

import { createServer, request, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { pipeline } from "node:stream/promises";
import { systemClock } from "../../../src/base/clock.ts";

export type Mood =
  | { readonly kind: "well" }
  /** 503 to every call. */
  | { readonly kind: "unavailable" }
  /** Each call waits so long, and its body passes at this rate. */
  | { readonly kind: "slow"; readonly waitMs: number; readonly bytesPerSecond: number }
  /** Of ten calls, `shareOfTen` end without an answer, every other of them after the account has done its work. */
  | { readonly kind: "hangingUp"; readonly shareOfTen: number };

export interface StorageFront extends AsyncDisposable {
  readonly url: string;
  mood: Mood;
  readonly spoiledCount: number;
}

export async function openStorageFront(
  accountUrl: string,
  identity: { readonly certPem: string; readonly keyPem: string; readonly caPem: string },
): Promise<StorageFront> {
  const target = new URL(accountUrl);
  let mood: Mood = { kind: "well" };
  let spoiledCount = 0;
  let callCount = 0;
  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const now = mood;
    callCount += 1;
    if (now.kind === "unavailable") {
      spoiledCount += 1;
      incoming.resume();
      outgoing.writeHead(503, { "content-type": "application/xml" }).end("<Error><Code>ServerBusy</Code></Error>");
      return;
    }
    const hangsUp = now.kind === "hangingUp" && callCount % 10 < now.shareOfTen;
    if (hangsUp) spoiledCount += 1;
    if (hangsUp && callCount % 2 === 0) return void outgoing.destroy();
    if (now.kind === "slow") {
      spoiledCount += 1;
      await systemClock.sleep(now.waitMs);
    }
    const { method, url: path, headers } = incoming;
    const forwarded = request({ host: target.hostname, port: target.port, method, path, headers, ca: identity.caPem });
    const answered = new Promise<IncomingMessage>((resolve, reject) => void forwarded.once("response", resolve).once("error", reject));
    answered.catch(() => undefined); // Awaited below; the pipeline may fail first.
    await pipeline(incoming, now.kind === "slow" ? paced(now.bytesPerSecond) : (chunks) => chunks, forwarded);
    const answer = await answered;
    if (hangsUp) {
      answer.resume();
      return void outgoing.destroy();
    }
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    await pipeline(answer, outgoing);
  };
  const server = createServer({ cert: identity.certPem, key: identity.keyPem }, (incoming, outgoing) => {
    serve(incoming, outgoing).catch(() => outgoing.destroy()); // Either side went away.
  });
  const port = await listen(server);
  return {
    url: `https://localhost:${port}${target.pathname}`,
    get mood() {
      return mood;
    },
    set mood(next) {
      mood = next;
    },
    get spoiledCount() {
      return spoiledCount;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}

function paced(bytesPerSecond: number): (chunks: AsyncIterable<Buffer>) => AsyncGenerator<Buffer> {
  return async function* (chunks) {
    for await (const chunk of chunks) {
      await systemClock.sleep((chunk.length / bytesPerSecond) * 1000);
      yield chunk;
    }
  };
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port; // A TCP server has a port.
}
