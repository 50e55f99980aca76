// Holds the table of who may import whom against every import, static and dynamic. Change the table only on purpose.

import { posix } from "node:path";
import { lineAt, readProjectFiles, reportFindings, withoutPlanted, type Finding, type ProjectFile } from "./project-files.ts";

export interface Layer {
  /** A folder, or one file that stands apart from its folder. The longest row that holds a path counts. */
  readonly row: string;
  /** Rows that it may import besides itself. */
  readonly mayImport: readonly string[];
}

const leaves = ["src/base", "src/contract"];
const planes = [...leaves, "src/disk", "src/store", "src/vault", "src/nbd", "src/connectivity", "src/landing"];
const programs = [
  "src/agent",
  "src/appliance",
  "src/hub",
  "src/cli",
  "src/cli/setup",
  "src/cli/output.ts",
  "src/sim",
  "src/main.ts",
  "src/setup-ui/setup-bundle.ts",
];
const all = [...planes, ...programs, "lab", "lab/packages.ts"];

/** ARCHITECTURE.md shows the same table to people. */
export const layers: readonly Layer[] = [
  { row: "src/base", mayImport: [] },
  { row: "src/contract", mayImport: [] },
  { row: "src/disk", mayImport: leaves },
  { row: "src/store", mayImport: leaves },
  { row: "src/connectivity", mayImport: leaves },
  { row: "src/vault", mayImport: [...leaves, "src/disk", "src/store"] },
  { row: "src/nbd", mayImport: [...leaves, "src/disk"] },
  { row: "src/landing", mayImport: [...leaves, "src/disk", "src/connectivity"] },
  { row: "src/agent", mayImport: [...leaves, "src/disk", "src/connectivity"] },
  { row: "src/appliance", mayImport: [...leaves, "src/disk", "src/store", "src/vault", "src/connectivity", "src/cli/output.ts"] },
  { row: "src/hub", mayImport: [...planes, "src/cli/output.ts"] },
  { row: "src/cli", mayImport: [...leaves, "src/connectivity", "src/cli/setup", "src/cli/output.ts"] },
  { row: "src/cli/setup", mayImport: [...leaves, "src/cli/output.ts", "lab/packages.ts"] },
  // How every command prints; the programs' own commands use it too.
  { row: "src/cli/output.ts", mayImport: leaves },
  // A hub with a simulated site in one process: the only place that knows both sides of the appliance protocol.
  { row: "src/sim", mayImport: [...planes, "src/appliance", "src/hub", "src/cli"] },
  // The one executable finds every program, by dynamic import.
  { row: "src/main.ts", mayImport: all },
  { row: "src/portal", mayImport: ["src/contract"] },
  // Runs in browsers.
  { row: "src/setup-ui", mayImport: ["src/contract"] },
  { row: "src/setup-ui/setup-bundle.ts", mayImport: leaves },
  {
    row: "lab",
    mayImport: [
      ...leaves,
      "src/disk",
      "src/connectivity",
      "src/landing",
      "src/cli",
      "src/cli/setup",
      "src/cli/output.ts",
      "lab/packages.ts",
    ],
  },
  // Data only, so that set-up can read it without the lab.
  { row: "lab/packages.ts", mayImport: [] },
  { row: "test", mayImport: [...all, "packaging", "src/setup-ui"] },
  { row: "bench", mayImport: [...all, "test"] },
  { row: "tools", mayImport: leaves },
  // Bundles the one executable; of the sources it calls what makes the agent's bundle and the set-up page, and what finds Debian's packages.
  { row: "packaging", mayImport: [...leaves, "src/agent", "src/landing", "src/setup-ui/setup-bundle.ts", "src/cli/output.ts"] },
];

/** Imports that no row allows, and files that no row holds. */
export function checkLayers(files: readonly ProjectFile[], table: readonly Layer[] = layers): readonly Finding[] {
  return files.flatMap((file) => {
    const from = findRow(file.path, table);
    if (from === undefined) {
      return [{ path: file.path, line: 1, message: "no row of the table in tools/check-layers.ts holds this file; add its folder" }];
    }
    return findImports(file.text).flatMap(({ specifier, offset }) => {
      const message = judge(file.path, specifier, from, table);
      return message === undefined ? [] : [{ path: file.path, line: lineAt(file.text, offset), message }];
    });
  });
}

function judge(path: string, specifier: string | undefined, from: Layer, table: readonly Layer[]): string | undefined {
  if (specifier === undefined) return "a dynamic import must name its file as a plain string, so that it can be checked";
  if (!specifier.startsWith(".")) return undefined;
  const target = posix.join(posix.dirname(path), specifier);
  const to = findRow(target, table);
  if (to === undefined) return `imports ${target}, which no row of the table in tools/check-layers.ts holds`;
  if (to === from || from.mayImport.includes(to.row)) return undefined;
  return `${from.row} may not import ${to.row} (${target}); if it should, change the row "${from.row}" in tools/check-layers.ts`;
}

function findRow(path: string, table: readonly Layer[]): Layer | undefined {
  const holding = table.filter(({ row }) => path === row || path.startsWith(`${row}/`));
  return holding.toSorted((one, other) => other.row.length - one.row.length)[0];
}

interface FoundImport {
  /** Undefined when it is computed. */
  readonly specifier: string | undefined;
  readonly offset: number;
}

// The formatter puts each import statement at the start of a line, which keeps texts inside strings apart from code.
const staticImport = /^(?:import|export)\s(?:[^"';]*?\sfrom\s*)?["']([^"']+)["']/gm;
const dynamicImport = /(?<![\w.$])import\(\s*(?:\/\*[^*]*\*\/\s*)?(?:["']([^"']+)["']\s*\)|)/g;

function findImports(text: string): readonly FoundImport[] {
  const isInComment = (offset: number): boolean => /^\s*(?:\/\/|\*|\/\*)/.test(text.slice(text.lastIndexOf("\n", offset) + 1, offset));
  return [...text.matchAll(staticImport), ...text.matchAll(dynamicImport)]
    .filter((match) => !isInComment(match.index))
    .map((match) => ({ specifier: match[1], offset: match.index }));
}

if (import.meta.main) {
  const files = withoutPlanted(await readProjectFiles([".ts", ".tsx"]));
  reportFindings("layers", files.length, checkLayers(files));
}
