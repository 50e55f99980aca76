// A plain NBD client for tests: says exactly what it is told to and shows every reply as it came.

import { connect, type Socket } from "node:net";
import { ByteReader } from "./byte-reader.ts";
import { encodeRequest, handshakeFlags, optionMagic, options, type Request } from "./protocol.ts";

export interface OptionReply {
  readonly option: number;
  readonly kind: number;
  readonly data: Buffer;
}

export type Reply =
  | { readonly kind: "simple"; readonly cookie: bigint; readonly error: number }
  | { readonly kind: "chunk"; readonly cookie: bigint; readonly type: number; readonly isLast: boolean; readonly data: Buffer };

const ack = 1;
const simpleMagic = 0x6744_6698;
const structuredMagic = 0x668e_33ef;

export class TestClient implements AsyncDisposable {
  readonly socket: Socket;
  readonly reader: ByteReader;
  #cookie = 1n;

  constructor(path: string) {
    this.socket = connect(path);
    this.socket.on("error", () => undefined); // Tests look at what arrives.
    this.reader = new ByteReader(this.socket);
  }

  /** Goes through the handshake up to the export. */
  static async open(
    path: string,
    exportName: string,
    wishes: { readonly isStructured: boolean } = { isStructured: true },
  ): Promise<TestClient> {
    const client = new TestClient(path);
    await client.greet();
    if (wishes.isStructured) {
      await client.option(options.structuredReply, Buffer.alloc(0));
      await client.option(options.setMetaContext, contextRequest(exportName, ["base:allocation"]));
    }
    const replies = await client.option(options.go, goRequest(exportName));
    if (replies.at(-1)?.kind !== ack) throw new Error(`the server refused the export ${exportName}`);
    return client;
  }

  async greet(): Promise<void> {
    if ((await this.reader.take(18)) === undefined) throw new Error("the server did not greet");
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes);
    this.socket.write(flags);
  }

  /** Sends an option and takes its replies up to the one that ends them. */
  async option(option: number, data: Buffer): Promise<readonly OptionReply[]> {
    const header = Buffer.alloc(16);
    header.writeBigUInt64BE(optionMagic, 0);
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(data.length, 12);
    this.socket.write(Buffer.concat([header, data]));
    const replies: OptionReply[] = [];
    for (;;) {
      const head = await this.#take(20);
      const reply = { option: head.readUInt32BE(8), kind: head.readUInt32BE(12), data: await this.#take(head.readUInt32BE(16)) };
      replies.push(reply);
      if (reply.kind === ack || reply.kind >= 0x8000_0000) return replies;
    }
  }

  /** Sends a request and takes its whole reply. One at a time. */
  async request(given: Partial<Request> & Pick<Request, "command">, payload?: Uint8Array): Promise<readonly Reply[]> {
    const cookie = this.#cookie++;
    this.socket.write(encodeRequest({ flags: 0, offset: 0n, lengthBytes: 0, ...given, cookie }));
    if (payload !== undefined) this.socket.write(payload);
    const dataBytes = given.lengthBytes ?? 0;
    const replies: Reply[] = [];
    for (;;) {
      const magic = (await this.#take(4)).readUInt32BE(0);
      if (magic === simpleMagic) {
        const head = await this.#take(12);
        replies.push({ kind: "simple", error: head.readUInt32BE(0), cookie: head.readBigUInt64BE(4) });
        if (given.command === 0 && head.readUInt32BE(0) === 0) {
          replies.push({
            kind: "chunk",
            cookie,
            type: 1,
            isLast: true,
            data: Buffer.concat([Buffer.alloc(8), await this.#take(dataBytes)]),
          });
        }
        return replies;
      }
      if (magic !== structuredMagic) throw new Error("the reply is out of step");
      const head = await this.#take(16);
      const isLast = (head.readUInt16BE(0) & 1) !== 0;
      const data = Buffer.from(await this.#take(head.readUInt32BE(12)));
      replies.push({ kind: "chunk", type: head.readUInt16BE(2), cookie: head.readBigUInt64BE(4), isLast, data });
      if (isLast) return replies;
    }
  }

  /** Reads a range and puts the chunks together; throws with the error number when refused. */
  async read(offset: number, lengthBytes: number, flags = 0): Promise<Buffer> {
    const into = Buffer.alloc(lengthBytes, 0xee);
    for (const reply of await this.request({ command: 0, offset: BigInt(offset), lengthBytes, flags })) {
      if (reply.kind === "simple") {
        if (reply.error !== 0) throw new Error(`error ${reply.error}`);
        continue;
      }
      if (reply.type >= 0x8000) throw new Error(`error ${reply.data.readUInt32BE(0)}`);
      if (reply.type === 0) continue;
      const at = Math.max(0, Number(reply.data.readBigUInt64BE(0)) - offset);
      if (reply.type === 1) reply.data.copy(into, reply.data.readBigUInt64BE(0) === 0n ? 0 : at, 8);
      else into.fill(0, at, at + reply.data.readUInt32BE(8));
    }
    return into;
  }

  async #take(byteCount: number): Promise<Buffer> {
    const bytes = await this.reader.take(byteCount);
    if (bytes === undefined) throw new Error("the server hung up");
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
  }
}

export function goRequest(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const bytes = Buffer.alloc(4 + name.length + 2);
  bytes.writeUInt32BE(name.length, 0);
  name.copy(bytes, 4);
  return bytes;
}

export function contextRequest(exportName: string, queries: readonly string[]): Buffer {
  const words = [exportName, ...queries].map((word) => {
    const text = Buffer.from(word);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    return Buffer.concat([length, text]);
  });
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([words[0] ?? Buffer.alloc(0), count, ...words.slice(1)]);
}
