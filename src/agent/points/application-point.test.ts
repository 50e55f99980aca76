// Promises of application-consistent points: scripts run around the freeze, whatever goes wrong is said, and what was begun is always ended.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import type { ApplicationOutcome } from "../../contract/agent-control.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { createAgentLog } from "../log.ts";
import { SimulatedSource } from "../sim/simulated-source.ts";
import { endLeftRest, type ScriptPlace } from "../snapshot/scripts.ts";
import { ScriptedReceiver } from "../testing/scripted-receiver.ts";
import { Replicator } from "./replicator.ts";

interface Bench extends AsyncDisposable {
  readonly folder: string;
  readonly place: ScriptPlace;
  readonly source: SimulatedSource;
  script(name: string, body: string, mode?: number): Promise<string>;
  /** Lets the replicator make the point that its policy asks for at once; answers what its end said. */
  makePoint(): Promise<ApplicationOutcome | undefined>;
  /** What the scripts wrote, line by line. */
  told(): Promise<readonly string[]>;
}

async function openBench(msMax = 20_000): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), "watari-scripts-"));
  const place = { folder: join(folder, "scripts.d"), marker: join(folder, "resting"), ownerUid: process.getuid?.() ?? 0, msMax };
  await mkdir(place.folder, { mode: 0o755 });
  const path = join(folder, "disk");
  await writeFile(path, randomBytes(4 * blockBytes));
  const names = { hostname: "bench", smbiosUuid: "u", osMachineId: "m", bootId: randomUUID(), osName: "o", kernelRelease: "k" };
  const facts = { ...names, firmware: "bios" as const, cpuCount: 1, memoryBytes: 1, addresses: [], nics: [] };
  const disk = { diskId: parseDiskId("serial-0"), deviceName: "d0", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  const disks = [{ path, facts: disk }];
  const source = await SimulatedSource.open({ clock: systemClock, random: systemRandom, facts, disks, scripts: place });
  return {
    folder,
    place,
    source,
    script: async (name, body, mode = 0o755) => {
      const script = join(place.folder, name);
      await writeFile(script, `#!/bin/sh\nsay() { echo "$@" >> ${folder}/told; }\n${body}\n`);
      await chmod(script, mode);
      return script;
    },
    makePoint: async () => {
      const receiver = new ScriptedReceiver();
      const sealed = Promise.withResolvers<void>();
      const log = createAgentLog({
        clock: systemClock,
        write: (line) => {
          if (line.includes("point sealed") || line.includes("point failed")) sealed.resolve();
        },
      });
      const replicator = new Replicator({
        ...{ source, stateFolder: join(folder, "state"), clock: systemClock, random: systemRandom, log },
        ...{ connect: () => Promise.resolve(receiver.connect()), cpuSeconds: () => 0, residentBytes: () => 0 },
      });
      await replicator.load();
      await replicator.replicate({ pointIntervalSeconds: 3600, freezeMsMax: 2000, applicationIntervalMinutes: 60 });
      const ending = new AbortController();
      const running = replicator.run(ending.signal);
      await sealed.promise;
      ending.abort();
      await running;
      assert.deepEqual(receiver.breaches, []);
      return receiver.newest?.end.application;
    },
    told: async () => (await readFile(join(folder, "told"), "utf8").catch(() => "")).split("\n").filter((line) => line !== ""),
    [Symbol.asyncDispose]: async () => {
      await source[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

test("an application-consistent point has its scripts called around the freeze, in order and in reverse, with their output", async () => {
  await using bench = await openBench();
  await bench.script("10-one", 'say "one $1"; echo "output of $1"; echo and of errors >&2');
  await bench.script("20-two", 'say "two $1"');
  const outcome = await bench.makePoint();
  assert.equal(outcome?.isConsistent, true);
  assert.equal(outcome.fault, undefined);
  assert.deepEqual(await bench.told(), ["one --pre", "two --pre", "two --post", "one --post"]);
  assert.deepEqual(
    outcome.scripts.map(({ script, phase, exitCode, hasTimedOut }) => [script.split("/").at(-1), phase, exitCode, hasTimedOut]),
    [
      ["10-one", "pre", 0, false],
      ["20-two", "pre", 0, false],
      ["20-two", "post", 0, false],
      ["10-one", "post", 0, false],
    ],
  );
  assert.match(outcome.scripts[0]?.output ?? "", /output of --pre\n/);
  assert.match(outcome.scripts[0]?.output ?? "", /and of errors\n/);
});

test("a script that fails before the point makes it crash-consistent, and what had begun is ended", async () => {
  await using bench = await openBench();
  await bench.script("10-one", 'say "one $1"');
  await bench.script("20-two", 'say "two $1"; [ "$1" = --post ] || { printf "no \\033[31mspace"; exit 7; }');
  await bench.script("30-three", 'say "three $1"');
  const outcome = await bench.makePoint();
  assert.equal(outcome?.isConsistent, false);
  assert.equal(outcome.fault?.id, "ScriptFailed");
  assert.equal(outcome.fault.evidence["exitCode"], 7);
  assert.equal(outcome.fault.evidence["output"], "no ?[31mspace", "what could steer a terminal is taken out");
  assert.deepEqual(await bench.told(), ["one --pre", "two --pre", "two --post", "one --post"]);
  assert.equal(bench.source.freezeCount, 1, "the crash-consistent point was made");
});

test("a script that hangs is killed with all that it started, and its rest is ended", async () => {
  await using bench = await openBench(300);
  await bench.script("10-hangs", 'say "$1"; [ "$1" = --post ] || { trap "" TERM; sleep 600 & wait; sleep 600; }');
  const outcome = await bench.makePoint();
  assert.equal(outcome?.isConsistent, false);
  assert.deepEqual([outcome.scripts[0]?.hasTimedOut, outcome.scripts[0]?.exitCode], [true, undefined]);
  assert.match(outcome.fault?.message ?? "", /took longer than 0\.3 s and was killed/);
  assert.deepEqual(await bench.told(), ["--pre", "--post"]);
});

test("a script that fails after the point leaves the point what it is, and is told", async () => {
  await using bench = await openBench();
  await bench.script("10-one", '[ "$1" = --pre ]');
  const outcome = await bench.makePoint();
  assert.equal(outcome?.isConsistent, true);
  assert.deepEqual([outcome.fault?.id, outcome.fault?.evidence["phase"]], ["ScriptFailed", "post"]);
});

test("scripts that others could have written, and folders without any, are refused with the reason", async () => {
  const cases: readonly (readonly [string, RegExp, (bench: Bench) => Promise<unknown>])[] = [
    ["none", /there are no scripts in it/, async () => undefined],
    ["writable", /10-one: others than its owner may write/, async (bench) => await bench.script("10-one", 'say "$1"', 0o775)],
    ["not executable", /may not execute it/, async (bench) => await bench.script("10-one", 'say "$1"', 0o644)],
    [
      "writable folder",
      /scripts\.d: others than its owner may write/,
      async (bench) => {
        await bench.script("10-one", 'say "$1"');
        await chmod(bench.place.folder, 0o777);
      },
    ],
    [
      "link",
      /10-link: it is no program/,
      async (bench) => await symlink(await bench.script("../elsewhere", 'say "$1"'), join(bench.place.folder, "10-link")),
    ],
  ];
  for (const [name, why, arrange] of cases) {
    await using bench = await openBench();
    await arrange(bench);
    const outcome = await bench.makePoint();
    assert.deepEqual([outcome?.isConsistent, outcome?.fault?.id], [false, "ScriptRefused"], name);
    assert.match(outcome?.fault?.message ?? "", why, name);
    assert.deepEqual(await bench.told(), [], `${name}: nothing was run`);
  }
});

test("an agent that was killed while applications rested ends their rest at its next start", async () => {
  await using bench = await openBench();
  const one = await bench.script("10-one", 'say "one $1"');
  await bench.script("20-two", 'say "two $1"');
  await writeFile(bench.place.marker, JSON.stringify([one, join(bench.folder, "not-a-script")]));
  await endLeftRest(bench.place, systemClock);
  await endLeftRest(bench.place, systemClock);
  assert.deepEqual(await bench.told(), ["one --post"], "once, and only what may be run");
});
