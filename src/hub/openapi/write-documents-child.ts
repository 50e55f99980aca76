// `watari dev openapi` runs this: writes what follows from the table of types, docs/api/<namespace>.json and the table of rights.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { makeRightsTable, rightsTableFile } from "../auth/rights-table.ts";
import { makeDocuments } from "./documents.ts";
import { everyType } from "./every-type.ts";

const folder = join(import.meta.dirname, "../../../docs/api");
const table = await everyType();
await mkdir(folder, { recursive: true });
for (const { namespace, document } of makeDocuments(table))
  await writeFileAtomic(join(folder, `${namespace}.json`), `${JSON.stringify(document, undefined, 1)}\n`, { mode: 0o644 });
await writeFileAtomic(rightsTableFile, `${makeRightsTable(table).join("\n")}\n`, { mode: 0o644 });
