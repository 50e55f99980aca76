// Key files that all hubs of one database share: sealed in the database by the first hub, written to the state folder of each other.

import { mkdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { writeFileAtomic } from "../base/atomic-file.ts";
import type { SecretStore } from "./db/secrets.ts";

const owner = "hub";

/** The database's bytes win; "replaced" when the file had others. A path without a file is an error. */
export async function shareFile(wanted: {
  readonly secrets: SecretStore;
  readonly name: string;
  readonly path: string;
}): Promise<"kept" | "replaced"> {
  const { secrets, name, path } = wanted;
  const present = await readFile(path);
  const shared = await secrets.getOrCreate(owner, `file:${name}`, () => present);
  if (present.equals(shared)) return "kept";
  await mkdir(dirname(path), { recursive: true });
  await writeFileAtomic(path, shared, { mode: 0o600 });
  return "replaced";
}
