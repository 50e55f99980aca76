// Landing in Azure killed as each of its requests begins: the same order ends as if nothing had been, and a removal leaves nothing.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { silentLog as log } from "../../src/base/log.ts";
import { systemRandom as random } from "../../src/base/random.ts";
import type { EphemeralFacts, EphemeralHub } from "../../src/hub/hub-command.ts";
import { parseDiskId } from "../../src/contract/ids.ts";
import { MemoryDisk } from "../../src/disk/memory-disk.ts";
import type { LaunchSpec } from "../../src/landing/target.ts";
import { startEphemeralHub } from "../../src/sim/ephemeral-hub.ts";
import { openAzureFront, type AzureFront } from "../conformance/azure-target-rig.ts";
import { boot, openSimTarget } from "../conformance/azure-target-sim.ts";

export interface AzureKill {
  readonly facts: EphemeralFacts;
  readonly stateFolder: string;
  readonly owner: string;
  /** From 1; 0: never. */
  readonly at: number;
}

let hub: EphemeralHub;
let front: AzureFront;
before(async () => {
  const sections = { landing: { networks: { tests: { kind: "user" } } } };
  hub = await startEphemeralHub({ machineCount: 0, paceSeconds: 0, log, sections });
  front = await openAzureFront(hub.facts, { name: "tests", cidr: "10.77.0.0/24" });
});
after(async () => {
  await front[Symbol.asyncDispose]();
  await hub[Symbol.asyncDispose]();
});

const spec: LaunchSpec = {
  ...{ name: "web", cpuCount: 1, memoryBytes: 512 * 2 ** 20, firmware: "bios", network: { kind: "isolated" } },
  disks: [{ diskId: parseDiskId("boot"), isBoot: true, content: new MemoryDisk(boot) }],
  nics: [{ mac: "52:54:00:77:0a:01", guestName: "ens192", address: "10.77.0.20/24" }],
};

/** Answers how many requests a landing makes, or that it was killed. */
async function run(kill: AzureKill): Promise<number | "killed"> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "azure-kill-child.ts")], { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  child.stdin.end(JSON.stringify(kill));
  const [code, signal]: readonly unknown[] = await exited;
  if (signal === "SIGKILL") return "killed";
  assert.equal(code, 0);
  return Number(said);
}

async function strike(at: number): Promise<number | "killed"> {
  const stateFolder = await mkdtemp(join(tmpdir(), "wk-"));
  try {
    const owner = random.uuid();
    const place = { ...front.place, owner };
    const outcome = await run({ facts: hub.facts, stateFolder, owner, at });
    const target = await openSimTarget({ ...front, place }, stateFolder);
    const job = target.under({ kind: "job", fence: 1 });
    // Every other time the order is given up in place of being given again.
    if (at % 2 === 0) {
      await job.launch(spec);
      assert.deepEqual(await target.list(), ["web"]);
      assert.equal((await target.status("web")).power, "running");
      assert.deepEqual(await target.leftovers(), []);
    }
    await job.remove("web");
    assert.deepEqual([await target.list(), await target.leftovers()], [[], []]);
    return outcome;
  } finally {
    await rm(stateFolder, { recursive: true, force: true });
  }
}

describe("a landing in Azure", () => {
  it("that is killed at any request goes on, or goes without a trace", async (context) => {
    const count = await strike(0);
    assert.ok(typeof count === "number" && count > 10);
    for (let at = 1; at <= count; at++) await context.test(`request ${at} of ${count}`, async () => void (await strike(at)));
  });
});
