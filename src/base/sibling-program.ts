// Finds a program that lies beside the caller: in a checkout it ends with .ts, in a package it was bundled and ends with .mjs.

import { extname, join } from "node:path";

/** Path of the program `name` (without ending) in the folder of the module whose `import.meta` is given. */
export function siblingProgram(caller: Pick<ImportMeta, "dirname" | "filename">, name: string): string {
  return join(caller.dirname, `${name}${extname(caller.filename)}`);
}

/** Whether this program runs as a package made it, and not from a checkout. */
export function isPackaged(caller: Pick<ImportMeta, "filename">): boolean {
  return extname(caller.filename) !== ".ts";
}
