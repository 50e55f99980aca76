// Memory for the bodies of blocks frames, shared between threads and used again, so that a copy costs no fresh pages.

import { frameBodyBytesMax } from "../../contract/agent-frames.ts";

export class BodyPool {
  readonly #free: SharedArrayBuffer[] = [];

  /** Content is undefined. Given back with `release`, or dropped. */
  take(byteCount: number): Uint8Array {
    const memory = this.#free.pop() ?? new SharedArrayBuffer(frameBodyBytesMax);
    return new Uint8Array(memory, 0, byteCount);
  }

  /** `body` came from this pool and nobody uses it any more. */
  release(body: Uint8Array): void {
    if (body.buffer instanceof SharedArrayBuffer) this.#free.push(body.buffer);
  }
}
