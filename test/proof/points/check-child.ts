// Runs inside the helper guest: judges the stamps under the mount points given, and answers with JSON.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { judgeStamps } from "./stamps.ts";

const [slots = "0", ...folders] = process.argv.slice(2);
const names = folders.flatMap((folder) => [join(folder, "stamps-direct"), join(folder, "stamps-cached")]);
const files = await Promise.all(names.map(async (name) => await readFile(name)));
process.stdout.write(`${JSON.stringify(judgeStamps({ files: files.length, slots: Number(slots) }, files))}\n`);
