// Makes the set-up page's script from its sources: React and Fluent UI with it, minified, in parts that a browser keeps.

import { basename, join } from "node:path";
import { build, type Metafile } from "esbuild";

interface SetupBundle {
  readonly scripts: ReadonlyMap<string, Uint8Array>;
  /** The name of the one that the page starts with. */
  readonly entry: string;
  readonly metafile: Metafile;
}

/** The name by which React's sources ask for their mode. */
const reactMode = ["process", "env", "NODE_ENV"].join(".");

let made: Promise<SetupBundle> | undefined;

/** Made once a process, in about a second. */
export async function buildSetupFiles(): Promise<SetupBundle> {
  made ??= make();
  return await made;
}

async function make(): Promise<SetupBundle> {
  const result = await build({
    absWorkingDir: join(import.meta.dirname, "../.."),
    entryPoints: [join(import.meta.dirname, "view/main.tsx")],
    outdir: "/",
    entryNames: "[name]-[hash]",
    chunkNames: "part-[hash]",
    bundle: true,
    splitting: true,
    write: false,
    platform: "browser",
    target: "es2023",
    format: "esm",
    jsx: "automatic",
    define: { [reactMode]: '"production"' },
    minify: true,
    legalComments: "none",
    metafile: true,
    logLevel: "silent",
  });
  const scripts = new Map(result.outputFiles.map(({ path, contents }) => [basename(path), contents]));
  const entry = [...scripts.keys()].find((name) => name.startsWith("main-"));
  if (entry === undefined) throw new Error("assertion failed: esbuild made the entry");
  return { scripts, entry, metafile: result.metafile };
}
