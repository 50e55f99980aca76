// The project's own files and their text, as every house rule reads them, and how a rule tells what it found.

import { glob, readFile } from "node:fs/promises";
import { join, relative } from "node:path";

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

const foldersLeftOut = ["node_modules", ".git", ".watari"];

/** All files of the checkout with one of these endings, sorted by path. */
export async function readProjectFiles(endings: readonly string[]): Promise<readonly ProjectFile[]> {
  const entries = glob("**/*", { cwd: projectRoot, withFileTypes: true, exclude: (entry) => foldersLeftOut.includes(entry.name) });
  const paths: string[] = [];
  for await (const entry of entries) {
    const path = relative(projectRoot, join(entry.parentPath, entry.name));
    if (entry.isFile() && endings.some((ending) => path.endsWith(ending))) paths.push(path);
  }
  return await Promise.all(paths.toSorted().map(async (path) => ({ path, text: await readFile(join(projectRoot, path), "utf8") })));
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
