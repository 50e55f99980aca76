// Serves the metrics on a listener of their own, where the configuration says: there is no sign-in, so it is on loopback unless told.

import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { Metrics } from "./metrics.ts";

export interface MetricsListener extends AsyncDisposable {
  readonly port: number;
}

const headersMsMax = 5000;
const requestMsMax = 10_000;
const connectionsMax = 16;

export async function openMetricsListener(wanted: {
  readonly address: string;
  readonly port: number;
  readonly metrics: Metrics;
  readonly log: Log;
}): Promise<MetricsListener> {
  const { address, port, metrics, log } = wanted;
  const server = createServer({ headersTimeout: headersMsMax, requestTimeout: requestMsMax }, (request, response) => {
    const path = (request.url ?? "").split("?", 1)[0];
    if (path !== "/metrics" || request.method !== "GET") return void response.writeHead(path === "/metrics" ? 405 : 404).end();
    metrics.text().then(
      (text) => response.writeHead(200, { "content-type": metrics.contentType, "cache-control": "no-store" }).end(text),
      (error: unknown) => {
        log.warn("metrics not collected", { reason: error instanceof Error ? error.message : String(error) });
        response.writeHead(503).end();
      },
    );
  });
  server.maxConnections = connectionsMax;
  server.listen(port, address);
  await once(server, "listening").catch((error: unknown) => {
    throw new Fault("StateConflict", "could not open the listener for metrics", {
      ...{ cause: error, evidence: { address, port, reason: String(error) }, action: "change metrics in hub.yaml" },
    });
  });
  const at = server.address() as AddressInfo; // A TCP server that listens has one.
  log.info("metrics served", { address, port: at.port });
  return {
    port: at.port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      if (server.listening) await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}
