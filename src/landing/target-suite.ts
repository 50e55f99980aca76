// The promises of Target as tests: every target runs them, the simulated one too.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Fault, type FaultCode } from "../contract/errors.ts";
import { parseDiskId } from "../contract/ids.ts";
import type { Disk } from "../disk/disk.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import type { HttpProbe, LandingDisk, LaunchSpec, Probe, Target, TargetCommands } from "./target.ts";

export interface TargetHarness {
  readonly target: Target;
  /** Closes the target and opens it again, as a restart of the program would. */
  restart(): Promise<Target>;
  /** Ends a machine as a power cut would. */
  killMachine(name: string): Promise<void>;
  /** Traces of machines that are not listed. */
  leftovers(): Promise<readonly string[]>;
  close(): Promise<void>;
}

export interface TargetSuite {
  readonly kind: string;
  readonly open: () => Promise<TargetHarness>;
  /** Disks of a machine that boots and answers `answer`; closed by the suite's caller. */
  readonly disks: () => readonly LandingDisk[];
  readonly nic: { readonly mac: string; readonly guestName: string };
  readonly probe: HttpProbe;
  readonly answer: string;
  readonly bootSecondsMax: number;
  /** Its machines never depend on the recovery point: all is copied before they run. */
  readonly copiesFirst?: boolean;
  /** A reason not to run. */
  readonly skip?: string | undefined;
}

const quickSeconds = 2;

export function runTargetSuite(suite: TargetSuite): void {
  const spec = (name: string, disks: readonly LandingDisk[] = suite.disks()): LaunchSpec => ({
    name,
    cpuCount: 2,
    memoryBytes: 512 * 2 ** 20,
    firmware: "bios",
    disks,
    nics: [{ ...suite.nic, address: "10.77.0.20/24" }],
    network: { kind: "isolated" },
    tracksWrites: true,
  });
  const withHarness = (task: (harness: TargetHarness) => Promise<void>) => async () => {
    const harness = await suite.open();
    try {
      await task(harness);
    } finally {
      await harness.close();
    }
  };

  describe(`${suite.kind} target`, { skip: suite.skip ?? false }, () => {
    it(
      "refuses an order that makes no sense and leaves nothing",
      withHarness(async (harness) => {
        const good = spec("m");
        const bad: readonly LaunchSpec[] = [
          { ...good, name: "../m" },
          { ...good, cpuCount: 0 },
          { ...good, memoryBytes: 1 },
          { ...good, disks: [] },
          { ...good, disks: good.disks.map((disk) => ({ ...disk, isBoot: false })) },
          { ...good, nics: [{ mac: "x", guestName: "eth0" }] },
        ];
        for (const each of bad) await rejectsWith(commanded(harness.target).launch(each), "InputInvalid");
        await assertEmpty(harness);
      }),
    );

    it(
      "says gone of a machine that is not there",
      withHarness(async ({ target }) => {
        assert.equal((await target.status("nobody")).power, "gone");
        await commanded(target).remove("nobody");
        const calls = [
          () => commanded(target).start("nobody"),
          () => commanded(target).stop("nobody"),
          () => target.probe("nobody", suite.probe, 1),
          () => target.look("nobody"),
          () => commanded(target).fill("nobody", () => undefined),
          () => target.reattach("nobody", []),
        ];
        for (const call of calls) await rejectsWith(call(), "NotFound");
      }),
    );

    it(
      "leaves nothing when the disk holds no system",
      withHarness(async (harness) => {
        const disks = [{ diskId: parseDiskId("empty"), isBoot: true, content: new MemoryDisk(new Uint8Array(2 ** 22)) }];
        await rejectsWith(commanded(harness.target).launch(spec("empty", disks)), "HydrationUnsupported");
        await assertEmpty(harness);
      }),
    );

    it(
      "leaves nothing when the recovery point cannot be read",
      withHarness(async (harness) => {
        const disks = suite.disks().map((disk) => ({ ...disk, content: brokenDisk(disk.content) }));
        await assert.rejects(commanded(harness.target).launch(spec("broken", disks)), Fault);
        await assertEmpty(harness);
      }),
    );

    it(
      "leaves nothing when launch is aborted",
      withHarness(async (harness) => {
        const reason = new Error("the operator changed his mind");
        await assert.rejects(commanded(harness.target).launch(spec("aborted"), AbortSignal.abort(reason)));
        const controller = new AbortController();
        const disks = suite.disks().map((disk) => ({ ...disk, content: withFirstRead(disk.content, () => controller.abort(reason)) }));
        await assert.rejects(commanded(harness.target).launch(spec("aborted", disks), controller.signal));
        await assertEmpty(harness);
      }),
    );

    it(
      "boots from a recovery point, survives restarts and power cuts, fills, and goes without a trace",
      withHarness(async (harness) => {
        let { target } = harness;
        const disks = suite.disks();
        const first = await commanded(target).launch(spec("web", disks));
        assert.ok(first.hydration.changes.length > 0, "the changes are told");
        assert.deepEqual(await commanded(target).launch(spec("web", disks)), first, "launching again is no fault and changes nothing");
        assert.deepEqual(await target.list(), ["web"]);
        const answers = async (seconds: number) => {
          const outcome = await target.probe("web", suite.probe, seconds);
          assert.equal(outcome.kind, "answered", JSON.stringify(outcome));
          assert.equal(outcome.kind === "answered" ? outcome.body : "", suite.answer);
        };
        await answers(suite.bootSecondsMax);
        assert.ok((await target.status("web")).addresses.includes("10.77.0.20"), "the machine keeps its address");
        await proveOtherProbes(target, suite);

        target = await harness.restart();
        assert.equal((await target.status("web")).power, "running", "a restart of the program leaves the machine running");
        assert.equal((await target.status("web")).bytesToFill > 0, suite.copiesFirst !== true);
        await target.reattach("web", disks);
        await answers(suite.bootSecondsMax);

        await harness.killMachine("web");
        assert.equal((await target.status("web")).power, "stopped");
        await commanded(target).start("web");
        await answers(suite.bootSecondsMax);

        const left: number[] = [];
        await commanded(target).fill("web", (bytesLeft) => left.push(bytesLeft));
        assert.equal(left.at(-1), 0);
        assert.deepEqual(
          left,
          left.toSorted((a, b) => b - a),
          "progress never goes back",
        );
        assert.equal((await target.status("web")).bytesToFill, 0);
        assert.equal((await target.status("web")).power, "running", "the guest runs on while it is filled");
        await commanded(target).fill("web", () => undefined);

        target = await harness.restart(); // Nothing is served any more.
        await answers(suite.bootSecondsMax);
        await commanded(target).stop("web");
        await commanded(target).stop("web");
        assert.equal((await target.status("web")).power, "stopped");
        assert.equal((await target.probe("web", suite.probe, quickSeconds)).kind, "silent");
        await commanded(target).start("web");
        assert.equal((await target.status("web")).power, "running", "a filled machine starts by itself");
        await assertReadable(target, { name: "web", disks, isAtRest: false });
        await commanded(target).stop("web");
        await assertReadable(target, { name: "web", disks, isAtRest: true });
        target = await assertBars(harness, target, "web");
        await commanded(target).remove("web");
        await commanded(target).remove("web");
        assert.equal((await target.status("web")).power, "gone");
        await assertEmpty({ ...harness, target });
      }),
    );

    it(
      "refuses every command of an older hub, also after a restart and of a machine that is gone",
      withHarness(async (harness) => {
        const job = (target: Target, fence: number): TargetCommands => target.under({ kind: "job", fence });
        await job(harness.target, 7).launch(spec("taken"));
        const target = await harness.restart();
        const old = job(target, 6);
        const stale = [
          () => old.launch(spec("taken")),
          () => old.fill("taken", () => undefined),
          () => old.start("taken"),
          () => old.stop("taken"),
          () => old.remove("taken"),
          () => target.under({ kind: "person", fence: 6 }).stop("taken"),
        ];
        for (const command of stale) await rejectsWith(command(), "StaleOrder");
        assert.equal((await target.status("taken")).power, "running");
        await target.under({ kind: "person", fence: 99 }).stop("taken");
        await job(target, 8).remove("taken");
        await rejectsWith(job(target, 7).launch(spec("taken")), "StaleOrder");
        await assertEmpty({ ...harness, target });
      }),
    );

    it(
      "does not start the machine of a hub that was overtaken while it hydrated",
      withHarness(async (harness) => {
        const { target } = harness;
        const overtake = (): void =>
          void target
            .under({ kind: "job", fence: 9 })
            .start("late")
            .catch(() => undefined);
        const disks = suite.disks().map((disk) => ({ ...disk, content: withFirstRead(disk.content, overtake) }));
        const launched = target
          .under({ kind: "job", fence: 8 })
          .launch(spec("late", disks))
          .then(
            () => "launched",
            (error: unknown) => (error instanceof Fault ? error.code : "other"),
          );
        // A target that takes commands in turn carries the newer one out after the launch; one that does not refuses the launch.
        assert.ok(["launched", "StaleOrder"].includes(await launched));
        await target.under({ kind: "job", fence: 9 }).remove("late");
        await assertEmpty({ ...harness, target });
      }),
    );

    it(
      "does not start a machine whose recovery point nobody serves",
      withHarness(async (harness) => {
        await commanded(harness.target).launch(spec("waiting"));
        const target = await harness.restart();
        await harness.killMachine("waiting");
        if (suite.copiesFirst !== true) await rejectsWith(commanded(target).start("waiting"), "StateConflict");
        const other = suite.disks().map((disk) => ({ ...disk, diskId: parseDiskId("other") }));
        await rejectsWith(target.reattach("waiting", other), "InputInvalid");
        await target.reattach("waiting", suite.disks());
        await commanded(target).start("waiting");
        assert.equal((await target.status("waiting")).power, "running");
        await commanded(target).remove("waiting");
        await assertEmpty({ ...harness, target });
      }),
    );
  });
}

const pngSignature = "89504e470d0a1a0a";

/** Besides HTTP: a port, a program of the operator's with the machine's address, the serial console; and what the console shows. */
async function proveOtherProbes(target: Target, { probe: { port } }: TargetSuite): Promise<void> {
  const heard = async (probe: Probe, seconds = quickSeconds) => await target.probe("web", probe, seconds);
  assert.equal((await heard({ kind: "tcp", port })).kind, "answered");
  const folder = await mkdtemp(join(tmpdir(), "probe-"));
  try {
    const program = join(folder, "probe");
    await writeFile(program, '#!/bin/sh\necho "$WATARI_MACHINE at $WATARI_ADDRESSES"\n[ "$WATARI_MACHINE" = web ] && [ -z "$HOME" ]\n', {
      mode: 0o755,
    });
    const scripted = await heard({ kind: "script", program });
    assert.match(scripted.kind === "answered" ? scripted.body : JSON.stringify(scripted), /^web at .*10\.77\.0\.20/);
    await writeFile(program, "#!/bin/sh\necho it is ill >&2\nexit 3\n", { mode: 0o755 });
    const refused = await heard({ kind: "script", program }, 0.5);
    assert.match(refused.kind === "silent" ? refused.reason : "it answered", /ended with 3: it is ill/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const never = await heard({ kind: "serial", text: "a text that no guest says" }, 0.5);
  assert.match(never.kind === "silent" ? never.reason : "it answered", /does not say/);
  const { serialLog, screenshot } = await target.look("web");
  assert.equal(Buffer.from(screenshot ?? new Uint8Array()).toString("hex", 0, 8), pngSignature);
  const said = serialLog.trim().split("\n").at(-1)?.trim() ?? "";
  if (said !== "") assert.equal((await heard({ kind: "serial", text: said })).kind, "answered");
}

const commanded = (target: Target): TargetCommands => target.under({ kind: "job", fence: 1 });

async function assertEmpty(harness: Pick<TargetHarness, "target" | "leftovers">): Promise<void> {
  assert.deepEqual(await harness.target.list(), []);
  assert.deepEqual(await harness.leftovers(), []);
}

async function rejectsWith(call: Promise<unknown>, code: FaultCode): Promise<void> {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof Fault, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  });
}

function brokenDisk(content: Disk): Disk {
  const fail = async () => {
    throw new Fault("DataDamaged", "could not read a block: its digest is wrong");
  };
  return { sizeBytes: content.sizeBytes, read: fail, extents: fail, [Symbol.asyncDispose]: async () => undefined };
}

function withFirstRead(content: Disk, onFirst: () => void): Disk {
  let isFirst = true;
  return {
    sizeBytes: content.sizeBytes,
    read: async (offset, into, signal) => {
      if (isFirst) onFirst();
      isFirst = false;
      await content.read(offset, into, signal);
    },
    extents: async (offset, length, signal) => await content.extents(offset, length, signal),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** A filled machine's disks, beside the guest and at rest. */
async function assertReadable(
  target: Target,
  { name, disks, isAtRest }: { readonly name: string; readonly disks: readonly LandingDisk[]; readonly isAtRest: boolean },
): Promise<void> {
  if (target.openLanded === undefined) return;
  await using landed = await target.openLanded(name);
  assert.equal(landed.isAtRest, isAtRest);
  assert.deepEqual(
    landed.disks.map(({ diskId, content }) => `${diskId} ${content.sizeBytes}`),
    disks.map(({ diskId, content }) => `${diskId} ${content.sizeBytes}`),
  );
  for (const { content } of landed.disks) await content.read(content.sizeBytes - 512, Buffer.alloc(512));
}

/** Who is barred is started by nobody, over a restart, until it is allowed. Answers the target after the restart. */
async function assertBars(harness: TargetHarness, target: Target, name: string): Promise<Target> {
  if (commanded(target).bar === undefined) return target;
  await commanded(target).bar?.(name);
  await rejectsWith(commanded(target).start(name), "StateConflict");
  const later = await harness.restart();
  await rejectsWith(commanded(later).start(name), "StateConflict");
  await commanded(later).allow?.(name);
  await commanded(later).start(name);
  assert.equal((await later.status(name)).power, "running");
  return later;
}
