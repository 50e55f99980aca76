// Measures our NBD server against qemu-nbd on one raw file: nbdcopy to nowhere, rounds interleaved, medians, as a ratio.
// Run: node bench/nbd.ts [--size-mib 1024] [--rounds 5] [--json FILE]

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock as clock } from "../src/base/clock.ts";
import { silentLog as log } from "../src/base/log.ts";
import { runCommand, tryCommand } from "../src/base/run-command.ts";
import { openFileDisk } from "../src/disk/file-disk.ts";
import { openNbdServer } from "../src/nbd/server.ts";

const { values } = parseArgs({
  options: { "size-mib": { type: "string", default: "1024" }, rounds: { type: "string", default: "5" }, json: { type: "string" } },
});
const sizeMib = Number(values["size-mib"]);
const roundCount = Number(values.rounds);

const folder = await mkdtemp(join(tmpdir(), "nbd-bench-"));
try {
  const raw = join(folder, "raw");
  await makeRaw(raw);
  await using disk = await openFileDisk(raw, { access: "read" });
  const ownPath = join(folder, "own");
  await using server = await openNbdServer({
    listen: { kind: "unix", path: ownPath },
    exports: [{ name: "d", access: "read-only", disk }],
    clock,
    log,
  });
  const peerPath = join(folder, "peer");
  const peer = spawn("qemu-nbd", ["-r", "-t", "-e", "8", "-f", "raw", "-k", peerPath, "-x", "d", raw], { stdio: "ignore" });
  const peerUri = `nbd+unix:///d?socket=${encodeURIComponent(peerPath)}`;
  while ((await tryCommand("nbdinfo", ["--size", peerUri])).exitCode !== 0) await clock.sleep(20);
  const seconds = { own: [] as number[], peer: [] as number[] };
  for (let round = 0; round < roundCount; round++) {
    seconds.own.push(await copySeconds(server.uriOf("d")));
    seconds.peer.push(await copySeconds(peerUri));
  }
  peer.kill();
  await once(peer, "exit");
  const own = median(seconds.own);
  const other = median(seconds.peer);
  const result = { sizeMib, roundCount, ownSeconds: own, qemuNbdSeconds: other, ratio: own / other };
  console.log(`nbdcopy of ${sizeMib} MiB: ours ${own.toFixed(2)} s, qemu-nbd ${other.toFixed(2)} s, ratio ${result.ratio.toFixed(2)}`);
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(result)}\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
}

/** Three quarters random data in runs of 1 to 6 MiB, the rest holes. */
async function makeRaw(path: string): Promise<void> {
  await using file = await open(path, "wx");
  await file.truncate(sizeMib * 2 ** 20);
  const piece = randomBytes(2 ** 20);
  for (let at = 0; at < sizeMib; at++) if (at % 8 < 6) await file.write(piece, 0, piece.length, at * 2 ** 20);
}

async function copySeconds(uri: string): Promise<number> {
  const startedMs = clock.monotonicMs();
  await runCommand("nbdcopy", [uri, "null:"]);
  return (clock.monotonicMs() - startedMs) / 1000;
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
