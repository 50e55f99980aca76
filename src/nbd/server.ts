// Serves disks over NBD on a unix socket or a TCP port, to any number of clients up to a bound.

import { chmod, unlink } from "node:fs/promises";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { BufferPool } from "./buffer-pool.ts";
import { ByteReader } from "./byte-reader.ts";
import { shakeHands } from "./handshake.ts";
import { connectionsMax, exportNameBytesMax, handshakeMsMax, pieceBytesMax } from "./limits.ts";
import { Outbox } from "./outbox.ts";
import { transmissionFlagsOf, transmit, type NbdExport } from "./transmission.ts";

export type NbdListen =
  | { readonly kind: "unix"; readonly path: string }
  /** Port 0 takes a free one. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export interface NbdServerOptions {
  readonly listen: NbdListen;
  readonly exports: readonly NbdExport[];
  readonly clock: Clock;
  readonly log: Log;
}

interface Guest {
  readonly socket: Socket;
  exportName: string | undefined;
  readonly over: AbortController;
}

/** A listening server. Closing it ends all connections; the disks stay open. */
export class NbdServer implements AsyncDisposable {
  readonly #options: NbdServerOptions;
  readonly #exports = new Map<string, NbdExport>();
  readonly #guests = new Map<Guest, Promise<void>>();
  readonly #pool = new BufferPool({ bufferBytes: pieceBytesMax, keptMax: 32 });
  readonly #server: Server;
  #isClosed = false;

  /** Use openNbdServer. */
  constructor(options: NbdServerOptions) {
    this.#options = options;
    for (const served of options.exports) this.addExport(served);
    this.#server = createServer({ noDelay: true, highWaterMark: 256 * 1024 }, (socket) => this.#welcome(socket));
    this.#server.maxConnections = connectionsMax;
  }

  /** Serves one more disk. The name must be free. */
  addExport(served: NbdExport): void {
    assert(!this.#exports.has(served.name), `the export name ${served.name} is free`);
    assert(Buffer.byteLength(served.name) <= exportNameBytesMax, "the export name is short enough");
    this.#exports.set(served.name, served);
  }

  /** Stops serving a disk and ends the connections to it; none of its calls is under way on return. */
  async removeExport(name: string): Promise<void> {
    this.#exports.delete(name);
    await this.#dismiss((guest) => guest.exportName === name);
  }

  /** Where a client finds an export, as an NBD URI. */
  uriOf(name: string): string {
    const { listen } = this.#options;
    const path = encodeURIComponent(name);
    if (listen.kind === "unix") return `nbd+unix:///${path}?socket=${encodeURIComponent(listen.path)}`;
    const { address, port, family } = this.#address();
    return `nbd://${family === "IPv6" ? `[${address}]` : address}:${port}/${path}`;
  }

  /** Binds the socket. Called once, by openNbdServer. */
  async listen(): Promise<void> {
    const { listen } = this.#options;
    const isUnix = listen.kind === "unix";
    if (isUnix) await unlink(listen.path).catch(() => undefined); // A socket file of a dead server; listen tells if it stays.
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(isUnix ? { path: listen.path } : { host: listen.host, port: listen.port }, resolve);
    });
    if (isUnix) await chmod(listen.path, 0o600);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await this.#dismiss(() => true);
    await closed;
  }

  async #dismiss(isMeant: (guest: Guest) => boolean): Promise<void> {
    const meant = [...this.#guests].filter(([guest]) => isMeant(guest));
    for (const [guest] of meant) guest.socket.destroy();
    await Promise.all(meant.map(([, ended]) => ended));
  }

  #address(): AddressInfo {
    const address = this.#server.address();
    assert(typeof address === "object" && address !== null, "the server listens on TCP");
    return address;
  }

  #welcome(socket: Socket): void {
    const guest: Guest = { socket, exportName: undefined, over: new AbortController() };
    socket.on("error", () => undefined); // A peer that breaks off; the close event follows.
    socket.once("close", () => guest.over.abort(new Error("the nbd connection is closed")));
    const ended = this.#converse(guest)
      .catch((error: unknown) => this.#options.log.debug("nbd connection broke off", { error: String(error) }))
      .finally(() => {
        socket.destroy();
        this.#guests.delete(guest);
      });
    this.#guests.set(guest, ended);
  }

  async #converse(guest: Guest): Promise<void> {
    const { socket, over } = guest;
    const reader = new ByteReader(socket);
    const send = sender(socket);
    const haggling = new AbortController();
    void this.#options.clock.sleep(handshakeMsMax, haggling.signal).then(
      () => socket.destroy(),
      () => undefined, // The handshake ended in time.
    );
    const outcome = await shakeHands({
      reader,
      send,
      findExport: (name) => factsOf(this.#exports.get(name)),
      listExports: () => [...this.#exports.keys()],
    }).finally(() => haggling.abort());
    if (outcome.kind === "closed") return await hangUp(socket);
    const served = this.#exports.get(outcome.exportName);
    if (served === undefined) return; // Removed while we shook hands.
    guest.exportName = served.name;
    const log = this.#options.log.with({ exportName: served.name });
    const { isStructured, hasAllocation } = outcome;
    await transmit({
      reader,
      send,
      outbox: new Outbox(socket),
      served,
      isStructured,
      hasAllocation,
      pool: this.#pool,
      log,
      signal: over.signal,
    });
    await hangUp(socket);
  }
}

/** Starts a server; it listens on return. */
export async function openNbdServer(options: NbdServerOptions): Promise<NbdServer> {
  const server = new NbdServer(options);
  await server.listen();
  return server;
}

function factsOf(served: NbdExport | undefined) {
  if (served === undefined) return undefined;
  return { name: served.name, sizeBytes: served.disk.sizeBytes, transmissionFlags: transmissionFlagsOf(served) };
}

/** Sends pieces together and resolves when they have left this process. */
function sender(socket: Socket): (...pieces: readonly Uint8Array[]) => Promise<void> {
  return async (...pieces) => {
    await new Promise<void>((resolve, reject) => {
      if (socket.destroyed) return reject(new Error("the nbd connection is closed"));
      const onLast = (error?: Error | null) => (error ? reject(error) : resolve());
      socket.cork();
      for (const piece of pieces.slice(0, -1)) socket.write(piece);
      socket.write(pieces.at(-1) ?? Buffer.alloc(0), onLast);
      socket.uncork();
    });
  };
}

/** Lets what was written reach the peer before the end. */
async function hangUp(socket: Socket): Promise<void> {
  await new Promise<void>((resolve) => {
    if (socket.destroyed) return resolve();
    socket.once("close", () => resolve());
    socket.end(() => resolve());
  });
}
