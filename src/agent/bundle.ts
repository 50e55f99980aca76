// Makes the one file that is shipped to source machines: the agent with everything it imports, minified, no native code.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

export interface AgentBundle {
  readonly bytes: Uint8Array;
  /** SHA-256 of the bytes, hex. */
  readonly sha256: string;
}

let made: Promise<AgentBundle> | undefined;

/** The bundle of this checkout's agent; made once a process (0.1 s). */
export async function buildAgentBundle(): Promise<AgentBundle> {
  made ??= make();
  return await made;
}

async function make(): Promise<AgentBundle> {
  const result = await build({
    entryPoints: [join(fileURLToPath(new URL(".", import.meta.url)), "main.ts")],
    bundle: true,
    write: false,
    platform: "node",
    target: "node26",
    format: "esm",
    minify: true,
    legalComments: "none",
    logLevel: "silent",
  });
  const bytes = result.outputFiles[0]?.contents;
  if (bytes === undefined) throw new Error("assertion failed: esbuild made one file");
  return { bytes, sha256: createHash("sha256").update(bytes).digest("hex") };
}
