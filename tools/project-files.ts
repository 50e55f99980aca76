// The project's own files and their text, as every house rule reads them, and how a rule tells what it found.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../src/base/run-command.ts";

export const projectRoot = join(import.meta.dirname, "..");

export interface ProjectFile {
  /** From the project's root, with slashes. */
  readonly path: string;
  readonly text: string;
}

export interface Finding {
  readonly path: string;
  readonly line: number;
  readonly message: string;
}

/** All files that git knows or would take, of these endings; what was deleted but not committed is left out. */
export async function readProjectFiles(endings: readonly string[]): Promise<readonly ProjectFile[]> {
  const listed = await runCommand("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: projectRoot });
  const paths = [...new Set(listed.stdout.split("\0"))].filter((path) => path !== "" && endings.some((ending) => path.endsWith(ending)));
  const files = await Promise.all(paths.toSorted().map(readProjectFile));
  return files.filter((file) => file !== undefined);
}

async function readProjectFile(path: string): Promise<ProjectFile | undefined> {
  try {
    return { path, text: await readFile(join(projectRoot, path), "utf8") };
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** The tests of the rules hold the very faults that the rules look for. */
export function withoutPlanted(files: readonly ProjectFile[]): readonly ProjectFile[] {
  return files.filter(({ path }) => path !== "tools/house-rules.test.ts" && path !== "tools/check-tidy.ts");
}

/** The line, from 1, on which this offset lies. */
export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}

/** Prints findings as path:line: message and sets the exit code. */
export function reportFindings(rule: string, fileCount: number, findings: readonly Finding[]): void {
  for (const { path, line, message } of findings) console.log(`${path}:${line}: ${message}`);
  console.log(`${rule}: ${findings.length} findings in ${fileCount} files`);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
