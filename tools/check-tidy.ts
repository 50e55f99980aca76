// House rules that no linter knows: the first sentence of a file, debts with an issue, names and words that we do not use.

import { posix } from "node:path";
import { lineAt, readProjectFiles, reportFindings, withoutPlanted, type Finding, type ProjectFile } from "./project-files.ts";

const lineCountMax = 500;

interface Rule {
  readonly pattern: RegExp;
  readonly message: string;
  /** Files that the rule is for; all TypeScript unless told. */
  readonly isFor?: (path: string) => boolean;
}

/** Programs get their settings as arguments; the command line, entry files and test helpers may look themselves. */
const mustNotReadEnvironment = /^src\/(?!cli\/|.*(?:main|config|\.test)\.ts$|.*\/(?:testing\/|test-|trial-))/;

const rules: readonly Rule[] = [
  { pattern: /\bTODO\b(?!\(#\d+\))/g, message: "a TODO names its issue: TODO(#n)" },
  { pattern: /\b(?:FIXME|XXX|HACK)\b/g, message: "use TODO(#n) for a debt and NOTE for a trap" },
  {
    pattern:
      /^export (?:default |abstract )*(?:class|interface|type|const|function|async function) \w*(?:Manager|Helpers?|Utils?|Impl)\b/gm,
    message: "name the thing, not its role as a manager, helper, util or impl",
  },
  { pattern: /\b(?:test|it|describe|suite)\.(?:only|todo)\(/g, message: "a test that is alone or to do is not a test" },
  {
    pattern: /\bprocess\.env\b/g,
    message: "read the environment in main.ts or config.ts and give it as an argument",
    isFor: (path) => mustNotReadEnvironment.test(path),
  },
  {
    pattern: /\b(?:seamless(?:ly)?|blazing(?:ly)?|cutting-edge|world-class|best-in-class|effortless(?:ly)?)\b/gi,
    message: "praise is not a fact",
  },
];

/** What the rules find in TypeScript files. */
export function checkTidy(files: readonly ProjectFile[]): readonly Finding[] {
  return files.flatMap((file) => [...checkShape(file), ...checkRules(file)]);
}

function checkShape({ path, text }: ProjectFile): readonly Finding[] {
  const lines = text.split("\n");
  const first = lines[0]?.startsWith("#!") === true ? 1 : 0;
  const findings: Finding[] = [];
  if (!/^\/\/ \S.*[.?]$/.test(lines[first] ?? "")) {
    findings.push({ path, line: first + 1, message: "the first line says in one sentence what the file is: // Sentence." });
  }
  if (lines.length - 1 > lineCountMax) {
    findings.push({ path, line: lineCountMax, message: `longer than ${lineCountMax} lines; split it by idea` });
  }
  const name = posix.basename(path);
  if (/^index\.tsx?$/.test(name)) findings.push({ path, line: 1, message: "no index files; import the file you need" });
  if (/(?:^|-)(?:utils?|helpers?|manager|misc|common)\.tsx?$/.test(name)) {
    findings.push({ path, line: 1, message: "name the file after the main thing inside" });
  }
  return findings;
}

function checkRules({ path, text }: ProjectFile): readonly Finding[] {
  return rules
    .filter((rule) => rule.isFor?.(path) ?? true)
    .flatMap(({ pattern, message }) => [...text.matchAll(pattern)].map((match) => ({ path, line: lineAt(text, match.index), message })));
}

if (import.meta.main) {
  const files = withoutPlanted(await readProjectFiles([".ts", ".tsx"]));
  reportFindings("tidy", files.length, checkTidy(files));
}
