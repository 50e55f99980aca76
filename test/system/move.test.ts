// `watari move` moves a running guest for real: bad login refused, test and files first, then the cut-over, and nothing left after its removal.

import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import { askIn, ledgerPort, makeLonelyNetwork, startSource, wayToHost } from "./move-source.ts";

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const cacheFolder = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
const skip = process.getuid?.() === 0 ? false : "needs root for network namespaces, PostgreSQL's own account and FUSE";
const moveMsMax = 15 * 60_000;

const reportShape = z.object({
  reached: z.string(),
  steps: z.array(z.object({ name: z.string() })),
  files: z.array(z.object({ path: z.string(), sizeBytes: z.number() })),
  landed: z.looseObject({ name: z.string(), isRunning: z.boolean() }).optional(),
});
const ledgerShape = z.object({
  missing: z.number(),
  damaged: z.number(),
  boots: z.array(z.object({ first: z.number(), last: z.number() })),
});
const imageShape = z.looseObject({ format: z.string(), "virtual-size": z.number() });

test("move takes a running machine here, with its files before and nothing left after", { skip, timeout: moveMsMax }, async (context) => {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "mv-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o711); // The database's own account passes through it.
  const network = cleanup.use(await makeLonelyNetwork());
  const { enter } = network;
  const source = cleanup.use(await startSource({ folder, cacheFolder, enter, say: (text) => context.diagnostic(text) }));
  const state = join(folder, "state");
  const watari = async (...args: readonly string[]) => {
    const [program, ...own] = [...enter, process.execPath, "--disable-warning=ExperimentalWarning", main, ...args, "--state", state];
    return await tryCommand(program ?? "", own, { timeoutMs: moveMsMax });
  };
  const machine = `root@127.0.0.1:${source.sshPort}`;
  cleanup.defer(async () => void (await watari("move", "--remove", "--yes", machine)));
  const report = join(folder, "report.json");
  const move = async (...args: readonly string[]) => {
    const told = await watari("move", machine, "--appliance-address", wayToHost, "--json", report, ...args);
    context.diagnostic(told.stderr);
    return { ...told, read: async () => reportShape.parse(JSON.parse(await readFile(report, "utf8"))) };
  };
  const out = join(folder, "out");

  const unasked = await move("--key", source.keyFile);
  assert.equal(unasked.exitCode, 2, "nobody said that the source may be powered off");
  assert.match(unasked.stderr, /--yes/);

  await runCommand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(folder, "wrong")]);
  const refused = await move("--key", join(folder, "wrong"), "--until", "test");
  assert.notEqual(refused.exitCode, 0);
  assert.match(refused.stderr, /id +GuestPasswordWrong/);

  const tested = await move("--key", source.keyFile, "--until", "test", "--probe-port", String(ledgerPort), "--to", "qcow2", "--out", out);
  assert.equal(tested.exitCode, 0, tested.stderr);
  const { reached, files } = await tested.read();
  assert.equal(reached, "tested");
  assert.equal(files.length, 2);
  for (const { path } of files) {
    const info = await runCommand("qemu-img", ["info", "--output=json", path]);
    const image = imageShape.parse(JSON.parse(info.stdout));
    assert.equal(image.format, "qcow2");
    assert.ok(image["virtual-size"] >= 2 ** 30);
    await runCommand("qemu-img", ["check", "-q", path]);
  }
  assert.ok(source.isOn(), "a test leaves the source alone");

  const moved = await move("--yes", "--probe-port", String(ledgerPort), "--forward", `9080:${ledgerPort}`);
  assert.equal(moved.exitCode, 0, moved.stderr);
  const end = await moved.read();
  assert.equal(end.reached, "landed");
  assert.equal(end.landed?.isRunning, true);
  assert.ok(!end.steps.some(({ name }) => /^(replicate|test)/.test(name)), "the second call goes on, it does not begin again");
  assert.ok(!source.isOn(), "the source is off");

  const ledger = await askIn(enter, "http://127.0.0.1:9080/verify");
  const { missing, damaged, boots } = ledgerShape.parse(JSON.parse(ledger.stdout));
  assert.deepEqual({ missing, damaged }, { missing: 0, damaged: 0 });
  assert.equal(boots.length, 2, "the ledger knows the boot there and the boot here");
  assert.equal(boots[1]?.first, (boots[0]?.last ?? 0) + 1, "it goes on where it was");

  const removed = await watari("move", "--remove", "--yes", machine);
  assert.equal(removed.exitCode, 0, removed.stderr);
  assert.deepEqual(await readdir(state), []);
  assert.deepEqual(await processesNaming(`${state}/`), []);
  assert.deepEqual((await readdir(out)).length, 1, "files outlive the removal");
});

async function processesNaming(text: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const commandLine = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => ""); // It ended while we looked.
    if (commandLine.includes(text)) found.push(commandLine);
  }
  return found;
}
