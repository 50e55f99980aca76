// `watari dev package`: makes the packages of this checkout's programs.

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { printAnswer, printFault, say } from "../src/cli/output.ts";
import { asFault, Fault } from "../src/contract/errors.ts";
import { readOrigin } from "./origin.ts";
import { isProgramName, makePackage, programNames } from "./programs.ts";

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: "string", default: "dist" },
      dirty: { type: "boolean", default: false },
      version: { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  const [name = ""] = positionals;
  if (!isProgramName(name))
    throw new Fault("InputInvalid", `could not make a package of ${JSON.stringify(name)}: it is one of ${programNames.join(", ")}`);
  const origin = await readOrigin(values.dirty ? "any" : "committed");
  const version = values.version ?? origin.version;
  const folder = resolve(values.out);
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(tmpdir(), "watari-package-"));
  try {
    say(`package: watari-${name} ${version}`);
    const made = await makePackage(name, { version, epochSeconds: origin.epochSeconds, work, folder, compression: "xz" });
    const { path, sizeBytes, sha256 } = made;
    printAnswer({ asJson: values.json }, { path, sizeBytes, sha256, version }, () => `${path}\n${sizeBytes} bytes, SHA-256 ${sha256}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  const fault = asFault(error, "make a package");
  printFault(fault, { asJson: process.argv.includes("--json") });
  process.exitCode = fault.exitCode;
}
