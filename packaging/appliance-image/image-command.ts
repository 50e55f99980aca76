// `watari dev image`: makes the appliance's image, an OVA, of this checkout.

import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { printAnswer, printFault, say } from "../../src/cli/output.ts";
import { asFault, Fault } from "../../src/contract/errors.ts";
import { hostAptSettings, hostAptSources } from "../../src/landing/helper/apt-sources.ts";
import { readOrigin } from "../origin.ts";
import { makeImage } from "./make-image.ts";

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      out: { type: "string", default: "dist" },
      dirty: { type: "boolean", default: false },
      version: { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  if (process.getuid?.() !== 0)
    throw new Fault("Forbidden", "could not make the image: it is made as root", { action: "call it with sudo" });
  const origin = await readOrigin(values.dirty ? "any" : "committed");
  const version = values.version ?? origin.version;
  const folder = resolve(values.out);
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(process.env["WATARI_CACHE"] ?? tmpdir(), "watari-image-"));
  try {
    const sources = { aptSources: await hostAptSources("bookworm"), aptSettings: await hostAptSettings() };
    const onStep = (text: string): void => say(`image: ${text}`);
    const { path, sizeBytes, sha256 } = await makeImage({ version, epochSeconds: origin.epochSeconds, work, folder, ...sources, onStep });
    printAnswer({ asJson: values.json }, { path, sizeBytes, sha256, version }, () => `${path}\n${sizeBytes} bytes, SHA-256 ${sha256}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  const fault = asFault(error, "make the image");
  printFault(fault, { asJson: process.argv.includes("--json") });
  process.exitCode = fault.exitCode;
}
