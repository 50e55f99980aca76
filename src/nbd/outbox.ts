// Gathers small replies of one connection, so that those that are ready together leave together: one call of the system for many.

import type { Socket } from "node:net";

const chunkBytes = 128 << 10;
/** Longer replies are sent by themselves: copying them would cost more than a call. */
export const smallReplyBytes = 16 << 10;
const chunksKeptMax = 4;

interface Chunk {
  readonly bytes: Buffer;
  used: number;
  /** Settles when all of it has left this process. */
  readonly sent: PromiseWithResolvers<void>;
}

export class Outbox {
  readonly #socket: Socket;
  readonly #free: Buffer[] = [];
  #filling: Chunk | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Takes a whole reply, whose memory is the caller's again at once. Resolves when it has left this process. */
  async put(header: Uint8Array, data: Uint8Array): Promise<void> {
    const chunk = this.#chunkFor(header.length + data.length);
    chunk.bytes.set(header, chunk.used);
    chunk.bytes.set(data, chunk.used + header.length);
    chunk.used += header.length + data.length;
    await chunk.sent.promise;
  }

  #chunkFor(byteCount: number): Chunk {
    if (this.#filling !== undefined && this.#filling.used + byteCount > chunkBytes) this.#flush();
    if (this.#filling === undefined) {
      this.#filling = { bytes: this.#free.pop() ?? Buffer.allocUnsafeSlow(chunkBytes), used: 0, sent: Promise.withResolvers() };
      // After whatever else is ready in this turn.
      setImmediate(() => this.#flush());
    }
    return this.#filling;
  }

  #flush(): void {
    const chunk = this.#filling;
    if (chunk === undefined) return;
    this.#filling = undefined;
    if (this.#socket.destroyed) return chunk.sent.reject(new Error("the nbd connection is closed"));
    this.#socket.write(chunk.bytes.subarray(0, chunk.used), (error) => {
      if (this.#free.length < chunksKeptMax) this.#free.push(chunk.bytes);
      if (error) chunk.sent.reject(error);
      else chunk.sent.resolve();
    });
  }
}
