// Holds the pages against the tree: links lead somewhere, faults exist, decisions are short, every dependency has its page.

import { posix } from "node:path";
import { faultKinds } from "../src/contract/fault-kinds.ts";
import { lineAt, readProjectFiles, reportFindings, type Finding, type ProjectFile } from "./project-files.ts";

/** About half a page. */
const decisionCharactersMax = 3200;

export interface DocsInput {
  readonly pages: readonly ProjectFile[];
  /** Every path of the project, for links. */
  readonly paths: readonly string[];
  /** TypeScript files, where faults are thrown. */
  readonly sources: readonly ProjectFile[];
  /** Names of the packages in package.json. */
  readonly dependencies: readonly string[];
  readonly faultCodes: readonly string[];
}

/** What is wrong with the pages. */
export function checkDocs(input: DocsInput): readonly Finding[] {
  return [...checkLinks(input), ...checkFaults(input), ...checkDecisions(input)];
}

function checkLinks({ pages, paths }: DocsInput): readonly Finding[] {
  const known = new Set(paths.flatMap((path) => [path, ...folders(path)]));
  return pages.flatMap(({ path, text }) =>
    [...text.matchAll(/\]\(([^)\s]+)\)/g)].flatMap((match) => {
      const link = match[1] ?? "";
      if (/^[a-z]+:/.test(link) || link.startsWith("#")) return [];
      const target = posix.join(posix.dirname(path), link.replace(/#.*$/, "")).replace(/\/$/, "");
      return known.has(target) ? [] : [{ path, line: lineAt(text, match.index), message: `link to ${link} leads nowhere` }];
    }),
  );
}

function folders(path: string): readonly string[] {
  const parts = path.split("/").slice(0, -1);
  return parts.map((_part, index) => parts.slice(0, index + 1).join("/"));
}

/** Pages name only faults that exist ("fault `Name`"), and no row of the table is dead. */
function checkFaults({ pages, sources, faultCodes }: DocsInput): readonly Finding[] {
  const unknown = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/\b[Ff]aults?\s+`([A-Z]\w+)`/g)].flatMap((match) =>
      faultCodes.includes(match[1] ?? "") ? [] : [{ path, line: lineAt(text, match.index), message: `no fault is called ${match[1]}` }],
    ),
  );
  const table = "src/contract/fault-kinds.ts";
  const thrown = sources.filter(({ path }) => path !== table && !path.endsWith(".test.ts")).map(({ text }) => text);
  const dead = faultCodes.filter((code) => !thrown.some((text) => text.includes(`"${code}"`)));
  return [...unknown, ...dead.map((code) => ({ path: table, line: 1, message: `nothing uses the fault ${code}; remove its row` }))];
}

function checkDecisions({ pages, dependencies }: DocsInput): readonly Finding[] {
  const decisions = pages.filter(({ path }) => path.startsWith("docs/decisions/"));
  const long = decisions
    .filter(({ text }) => wordCharactersOf(text) > decisionCharactersMax)
    .map(({ path, text }) => ({
      path,
      line: 1,
      message: `a decision takes half a page (${decisionCharactersMax} characters), not ${wordCharactersOf(text)}`,
    }));
  const unexplained = dependencies.filter((name) => !decisions.some(({ text }) => text.includes(`\`${name}\``)));
  return [
    ...long,
    ...unexplained.map((name) => ({
      path: "package.json",
      line: 1,
      message: `no page in docs/decisions names \`${name}\`: why, who keeps it, how we leave it`,
    })),
  ];
}

async function readInput(): Promise<DocsInput> {
  const files = await readProjectFiles([".md", ".png", ".ts", ".json", "LICENSE", "watari"]);
  const manifest: unknown = JSON.parse(files.find(({ path }) => path === "package.json")?.text ?? "{}");
  return {
    pages: files.filter(({ path }) => path.endsWith(".md")),
    paths: files.map(({ path }) => path),
    sources: files.filter(({ path }) => path.endsWith(".ts") && !path.startsWith("tools/")),
    dependencies: [...namesIn(manifest, "dependencies"), ...namesIn(manifest, "devDependencies")].filter(
      (name) => !name.startsWith("@types/"),
    ),
    faultCodes: Object.keys(faultKinds),
  };
}

function namesIn(manifest: unknown, key: string): string[] {
  if (typeof manifest !== "object" || manifest === null) return [];
  const value: unknown = Reflect.get(manifest, key);
  return typeof value === "object" && value !== null ? Object.keys(value) : [];
}

if (import.meta.main) {
  const input = await readInput();
  reportFindings("docs", input.pages.length, checkDocs(input));
}

/** The formatter pads the cells of tables; padding is not length. */
function wordCharactersOf(text: string): number {
  return text.replaceAll(/ {2,}/g, " ").replaceAll(/-{2,}/g, "-").length;
}
