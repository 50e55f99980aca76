// Bundles the program for a package: one folder of JavaScript with everything it imports, the same bytes for the same sources.

import { mkdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { build, type Metafile } from "esbuild";
import { writeFileAtomic } from "../src/base/atomic-file.ts";
import { buildSetupFiles } from "../src/setup-ui/setup-bundle.ts";
import { buildAgentBundle } from "../src/agent/bundle.ts";

const projectRoot = join(import.meta.dirname, "..");

/** The program, and what it runs in processes and threads of their own; they find each other by their names in one folder. */
const programs = ["src/main.ts", "src/landing/qemu/http-probe-child.ts", "src/vault/block-pool-child.ts", "src/vault/read-pool-child.ts"];

/** Loaded only in a checkout (`needsCheckout` in src/main.ts), so a package has no use for it. */
const checkoutOnly = [
  "../lab/*",
  "./cli/dev.ts",
  "./cli/move-command.ts",
  "./cli/setup/setup-command.ts",
  "./agent/bundle.ts",
  "./setup-ui/setup-bundle.ts",
];
/** Native parts that their libraries do without. */
const native = ["cpu-features", "pg-native", "*.node"];

/** What libraries in CommonJS find in their scope. */
const commonScope = `import { createRequire } from "node:module";
const require = createRequire(import.meta.url), __dirname = import.meta.dirname, __filename = import.meta.filename;`;

/** Writes main.mjs, its children and chunks, and agent.mjs, into the folder. Answers the npm packages that are in them. */
export async function bundleProgram(folder: string): Promise<readonly string[]> {
  await mkdir(folder, { recursive: true });
  const { metafile } = await build({
    absWorkingDir: projectRoot,
    entryPoints: programs,
    entryNames: "[name]",
    // Flat: a chunk finds the children beside it, as its source does.
    chunkNames: "[name]-[hash]",
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    platform: "node",
    target: "node26",
    format: "esm",
    keepNames: true,
    legalComments: "none",
    external: [...checkoutOnly, ...native],
    banner: { js: commonScope },
    metafile: true,
    logLevel: "silent",
  });
  const { bytes } = await buildAgentBundle();
  await writeFileAtomic(join(folder, "agent.mjs"), bytes, { mode: 0o644 });
  const page = await buildSetupFiles();
  await mkdir(join(folder, "setup-ui"));
  for (const [name, content] of page.scripts) await writeFileAtomic(join(folder, "setup-ui", name), content, { mode: 0o644 });
  await mkdir(join(folder, "console-ui"));
  for (const path of ["lib/xterm.js", "css/xterm.css"]) {
    const content = await readFile(new URL(`../${path}`, import.meta.resolve("@xterm/xterm"))); // lib/xterm.js
    await writeFileAtomic(join(folder, "console-ui", basename(path)), content, { mode: 0o644 });
  }
  return [...new Set(["@xterm/xterm", ...packagesOf(metafile), ...packagesOf(page.metafile)])].toSorted();
}

function packagesOf(metafile: Metafile): readonly string[] {
  const names = Object.keys(metafile.inputs).flatMap((path) => {
    const [, inside] = path.split(/^(?:.*\/)?node_modules\//);
    if (inside === undefined) return [];
    const [scope = "", name = ""] = inside.split("/");
    return [scope.startsWith("@") ? `${scope}/${name}` : scope];
  });
  return [...new Set(names)].toSorted();
}

const licenceFiles = ["LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "license", "License", "LICENSE-MIT", "LICENSE-MIT.txt", "COPYING"];

/** Each library's name, version and licence text, as their licences ask of whoever ships them. */
export async function noticesOf(packages: readonly string[]): Promise<string> {
  const parts = [];
  for (const name of packages) {
    const root = join(projectRoot, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string; license?: string };
    parts.push(`${name} ${version} (${license ?? "see its text"})\n\n${(await licenceText(root)).trim()}\n`);
  }
  return parts.join(`\n${"-".repeat(72)}\n\n`);
}

async function licenceText(root: string): Promise<string> {
  for (const name of licenceFiles) {
    const text = await readFile(join(root, name), "utf8").catch(() => undefined); // It has another of the names, or none.
    if (text !== undefined) return text;
  }
  return "no licence text in the package";
}
