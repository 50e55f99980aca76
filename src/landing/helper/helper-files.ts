// Files of one filesystem that the helper machine has mounted, read and edited by requests.

import { Fault } from "../../contract/errors.ts";
import type { FileChange, GuestFile, VolumeFiles } from "../hydration/volume-files.ts";
import { bodyBytesMax, damagedAnswer, parseEntries, type HelperNode } from "./helper-frames.ts";
import type { HelperMachine } from "./helper-machine.ts";

const fileBytesMax = 512 * 2 ** 20;
const entriesMax = 1_000_000;
const typeMask = 0o170000;

export class HelperFiles implements VolumeFiles {
  readonly #helper: HelperMachine;
  readonly #mount: string;

  constructor(helper: HelperMachine, mount: string) {
    this.#helper = helper;
    this.#mount = mount;
  }

  async list(path: string): Promise<readonly GuestFile[] | undefined> {
    const files: GuestFile[] = [];
    for (let after = "0"; ;) {
      const { state, words, body } = await this.#helper.ask(["list", this.#mount, path, after]);
      if (state === "absent") return undefined;
      for (const { name, node } of parseEntries(body)) files.push(guestFile(name, node));
      const [next] = words;
      if (next === undefined || next === "") return files;
      if (files.length > entriesMax || Number(next) <= Number(after)) throw damagedAnswer();
      after = next;
    }
  }

  async read(paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>> {
    const found = new Map<string, Buffer>();
    for (const path of paths) {
      const content = await this.#readFile(path);
      if (content !== undefined) found.set(path, content);
    }
    return found;
  }

  async #readFile(path: string): Promise<Buffer | undefined> {
    const pieces: Buffer[] = [];
    let length = 0;
    for (;;) {
      const { state, words, body } = await this.#helper.ask(["read", this.#mount, path, String(length), String(bodyBytesMax)]);
      if (state === "absent") return undefined;
      const sizeBytes = Number(words[0]);
      if (sizeBytes > fileBytesMax || length + body.length > sizeBytes) return undefined;
      pieces.push(body);
      length += body.length;
      if (length === sizeBytes) return Buffer.concat(pieces);
      if (body.length === 0) throw damagedAnswer();
    }
  }

  async change(changes: readonly FileChange[]): Promise<void> {
    for (const change of changes) await this.#make(change);
    for (const change of changes) {
      if (change.kind !== "write") continue;
      if ((await this.#readFile(change.path))?.equals(change.content) === true) continue;
      throw new Fault("HydrationUnsupported", `could not write ${change.path} into the clone`, {
        causes: ["the filesystem is full"],
        action: "free room in the guest's filesystem, make a new recovery point and call again",
      });
    }
  }

  async #make(change: FileChange): Promise<void> {
    const mount = this.#mount;
    switch (change.kind) {
      case "write":
        for (let at = 0; at === 0 || at < change.content.length; at += bodyBytesMax)
          await this.#helper.ask(
            ["write", mount, change.path, String(at), String(change.mode)],
            change.content.subarray(at, at + bodyBytesMax),
          );
        return;
      case "rename":
        await this.#helper.ask(["rename", mount, change.from, change.to]);
        return;
      case "remove":
        await this.#helper.ask(["remove", mount, change.path]);
        return;
      case "removeFolder":
        await this.#helper.ask(["removefolder", mount, change.path]);
        return;
      case "makeFolder":
        await this.#helper.ask(["makefolder", mount, change.path]);
        return;
      case "link":
        await this.#helper.ask(["link", mount, change.path, change.to]);
        return;
    }
  }
}

function guestFile(name: Buffer, node: HelperNode): GuestFile {
  const kind = ({ 0o100000: "file", 0o040000: "folder", 0o120000: "link" } as const)[node.mode & typeMask] ?? "other";
  const { uid, gid, sizeBytes } = node;
  return { name: name.toString("utf8"), kind, mode: node.mode & 0o7777, uid, gid, sizeBytes };
}
