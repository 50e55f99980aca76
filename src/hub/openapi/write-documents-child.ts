// `watari dev openapi` runs this: writes docs/api/<namespace>.json from the table of types.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeDocuments } from "./documents.ts";
import { everyType } from "./every-type.ts";

const folder = join(import.meta.dirname, "../../../docs/api");
await mkdir(folder, { recursive: true });
for (const { namespace, document } of makeDocuments(await everyType()))
  await writeFile(join(folder, `${namespace}.json`), `${JSON.stringify(document, undefined, 1)}\n`);
