// The agents' data port: TLS 1.3 with client certificates, one connection a machine, several machines at once.

import { createServer, type TLSSocket } from "node:tls";
import { listen, peerOf, tlsServerOptions, type ListenAddress, type TlsListenOptions } from "../control/json-https.ts";
import type { MachineId } from "../../contract/ids.ts";
import { serveIngestConnection, type IngestParts } from "./ingest-connection.ts";

const connectionsMax = 1024;
/** Larger reads mean fewer wake-ups; one such buffer a connection. */
const readBufferBytes = 1 << 20;

export interface IngestListener extends AsyncDisposable {
  readonly listening: readonly ListenAddress[];
  /** Ends the machine's data connection, if it has one; its point is dropped. */
  disconnect(machineId: MachineId): Promise<void>;
}

interface OpenConnection {
  readonly socket: TLSSocket;
  readonly served: Promise<void>;
}

export async function startIngestListener(parts: IngestParts, options: TlsListenOptions): Promise<IngestListener> {
  const open = new Map<MachineId, OpenConnection>();
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(async () => {
    for (const { socket } of open.values()) socket.destroy();
    await Promise.all([...open.values()].map(async ({ served }) => await served));
  });

  const end = async (machineId: MachineId): Promise<void> => {
    const connection = open.get(machineId);
    connection?.socket.destroy();
    await connection?.served;
  };

  const onConnection = (socket: TLSSocket): void => {
    const peer = peerOf(socket);
    socket.on("error", () => undefined); // The reader of the socket sees the same error.
    if (peer === undefined) return void socket.destroy();
    socket.setNoDelay(true);
    // The older connection first drops its point; only then does the newer one begin.
    const older = open.get(peer.machineId);
    older?.socket.destroy();
    const served = (async (): Promise<void> => {
      await older?.served;
      await serveIngestConnection(parts, peer, socket);
      if (open.get(peer.machineId)?.socket === socket) open.delete(peer.machineId);
    })();
    open.set(peer.machineId, { socket, served });
  };

  const listening: ListenAddress[] = [];
  for (const address of options.addresses) {
    const server = createServer(
      { ...tlsServerOptions(options), rejectUnauthorized: true, highWaterMark: readBufferBytes, handshakeTimeout: 15_000 },
      onConnection,
    );
    server.maxConnections = connectionsMax;
    server.on("tlsClientError", (error) => parts.log.debug("TLS handshake refused", { reason: error.message }));
    cleanup.defer(async () => await new Promise<void>((resolve) => void server.close(() => resolve())));
    cleanup.defer(() => {
      for (const { socket } of open.values()) socket.destroy();
    });
    listening.push(await listen(server, { address, port: options.port }));
  }
  const owned = cleanup.move();
  return { listening, disconnect: end, [Symbol.asyncDispose]: async () => await owned.disposeAsync() };
}
