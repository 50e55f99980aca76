// The hub's blob front over HTTPS as a process of its own, with an empty container.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { ApplianceStart } from "./data-path-messages.ts";
import { stopChild } from "./measured.ts";

export interface BlobFront extends AsyncDisposable {
  readonly blob: NonNullable<ApplianceStart["blob"]>;
}

export async function startBlobFront(folder: string): Promise<BlobFront> {
  const root = join(folder, "front");
  await mkdir(join(root, "acct1", "vault"), { recursive: true });
  const key = randomBytes(32).toString("base64");
  const program = join(import.meta.dirname, "../src/hub/blob/test-blob-child.ts");
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", program, root], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(key);
  const [line]: unknown[] = await once(createInterface(child.stdout), "line");
  const { accountUrl, ca } = JSON.parse(String(line)) as { accountUrl: string; ca: string }; // What that program writes.
  return { blob: { accountUrl, ca, key }, [Symbol.asyncDispose]: async () => await stopChild(child) };
}
