// The sealed helper machine: opens what this host must not (XFS, btrfs, LVM, RAID, encryption), without network, one request at a time.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { open, readFile, rm, stat } from "node:fs/promises";
import { Socket } from "node:net";
import { join } from "node:path";
import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { withoutRights } from "../../base/without-rights.ts";
import { Fault } from "../../contract/errors.ts";
import { chooseAccelerator } from "../qemu/accelerator.ts";
import { talkQmp, type Qmp } from "../qemu/qmp.ts";
import { AnswerReader, encodeRequest, type HelperAnswer } from "./helper-frames.ts";
import { helperModules, type HelperImage } from "./helper-image.ts";
import { goOnFromState, isThere, saveWarmState, warmStatePath } from "./warm-state.ts";

export interface HelperOptions {
  readonly image: HelperImage;
  /** One block graph per disk of the guest, in QEMU's own words, in the source's order. */
  readonly graphs: readonly { readonly nodes: readonly object[]; readonly topNode: string }[];
  /** Opening an encrypted volume may need a gigabyte by itself. */
  readonly memory: "small" | "large";
  /** An own folder. */
  readonly scratchFolder: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

export interface HelperMachine extends AsyncDisposable {
  /** Throws Fault DataDamaged with the helper's words when it could not. */
  ask(words: readonly (string | Uint8Array)[], body?: Uint8Array): Promise<HelperAnswer & { readonly state: "ok" | "absent" }>;
}

const helperDisksMax = 24;
const startMsMax = 60_000;
/** An argon2 key on an emulated processor takes minutes. */
const requestMsMax = 300_000;
const lifeMsMax = 1_800_000;
const consoleBytesMax = 4 << 20;
const watchMs = 1_000;
const kernelWords = [
  "quiet loglevel=3 panic=-1 console=ttyS0 nokaslr mitigations=off audit=0 selinux=0 apparmor=0",
  "random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests md_mod.start_ro=1 rdinit=/init",
].join(" ");

/** Answers once the helper answers. The disks are written as it writes them; closing cuts its power, so ask it to finish first. */
export async function startHelperMachine(options: HelperOptions): Promise<HelperMachine> {
  const { graphs, signal } = options;
  if (graphs.length > helperDisksMax)
    throw new Fault("HydrationUnsupported", "could not open the machine's disks: the helper machine takes fewer", {
      evidence: { disks: graphs.length, disksMax: helperDisksMax },
    });
  const words = await machineWords(options);
  const statePath = await warmStatePath(options.image, words);
  const warm = (await isThere(statePath)) ? await startWarm(options, { words, statePath }) : undefined;
  const started = warm ?? (await startCold(options, { words, statePath }));
  try {
    for (const [index, { nodes, topNode }] of graphs.entries()) {
      for (const node of nodes) await started.qmp.execute("blockdev-add", { ...node });
      await started.qmp.execute("device_add", { driver: "virtio-blk-pci", drive: topNode, serial: `d${index}` });
    }
    await started.qmp[Symbol.asyncDispose]();
    signal?.throwIfAborted();
    await started.helper.ask(["disks", String(graphs.length)]);
  } catch (error) {
    await started.helper[Symbol.asyncDispose]();
    throw error;
  }
  return started.helper;
}

interface Start {
  readonly words: readonly string[];
  readonly statePath: string;
}

interface Started {
  readonly helper: SealedMachine;
  readonly qmp: Qmp;
}

/** Undefined: the state is of no use, and is removed; a start without it is as good, and slower. */
async function startWarm(options: HelperOptions, { words, statePath }: Start): Promise<Started | undefined> {
  await using state = await open(statePath, "r");
  const { helper, monitor } = await spawnMachine(options, [...words, "-S", "-incoming", "fd:4"], state.fd);
  try {
    const qmp = await talkQmp(monitor);
    await goOnFromState(qmp, options.clock);
    await hello(helper, options.clock);
    return { helper, qmp };
  } catch (error) {
    await helper[Symbol.asyncDispose]();
    options.signal?.throwIfAborted();
    if (!(error instanceof Fault)) throw error;
    await rm(statePath, { force: true });
    return undefined;
  }
}

async function startCold(options: HelperOptions, { words, statePath }: Start): Promise<Started> {
  const { clock } = options;
  const { helper, monitor } = await spawnMachine(options, words);
  try {
    const qmp = await talkQmp(monitor);
    await hello(helper, clock);
    await helper.ask(["warm", ...helperModules]);
    await saveWarmState(qmp, statePath, clock).catch((error: unknown) => {
      if (!(error instanceof Error)) throw error; // Else the next one starts as slowly as this one, for want of room in the cache.
    });
    return { helper, qmp };
  } catch (error) {
    await helper[Symbol.asyncDispose]();
    throw error;
  }
}

/** A machine that was stopped for a while does not know the time. */
async function hello(helper: SealedMachine, clock: Clock): Promise<void> {
  await helper.ask(["hello", String(Math.floor(clock.nowMs() / 1000))], undefined, startMsMax);
}

async function spawnMachine(
  options: HelperOptions,
  words: readonly string[],
  stateFile?: number,
): Promise<{ readonly helper: SealedMachine; readonly monitor: Socket }> {
  const consolePath = join(options.scratchFolder, "helper-console.log");
  const errorPath = join(options.scratchFolder, "helper-emulator.log");
  await using errorFile = await open(errorPath, "w");
  const serial = ["-chardev", `file,id=console,path=${consolePath.replaceAll(",", ",,")}`, "-serial", "chardev:console"];
  const command = ["--pdeathsig", "KILL", ...withoutRights.slice(1), "qemu-system-x86_64", ...words, ...serial];
  const child = spawn("setpriv", command, {
    stdio: ["pipe", "pipe", errorFile.fd, "pipe", ...(stateFile === undefined ? [] : [stateFile])],
  });
  const monitor = child.stdio[3];
  assert(monitor instanceof Socket, "a pipe to a child is a socket");
  return { helper: new SealedMachine(child, { ...options, consolePath, errorPath }), monitor };
}

/** The same with a state and without one: a state fits only a machine of the same parts. Disks come later. */
async function machineWords({ image, memory }: HelperOptions): Promise<readonly string[]> {
  const accelerator = await chooseAccelerator();
  return [
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none", "-machine", "pc"],
    ...(accelerator === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,thread=multi", "-cpu", "max"]),
    ...["-smp", "1", "-m", memory === "large" ? "2048M" : "512M"],
    ...["-kernel", image.kernel, "-initrd", image.initrd, "-append", kernelWords],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-chardev", "socket,id=monitor,fd=3", "-mon", "chardev=monitor,mode=control"],
    ...["-device", "virtio-serial-pci", "-chardev", "stdio,id=channel,signal=off"],
    ...["-device", "virtserialport,chardev=channel,name=watari"],
  ];
}

type Child = ReturnType<typeof spawn>;

class SealedMachine implements HelperMachine {
  readonly #child: Child;
  readonly #options: HelperOptions & { readonly consolePath: string; readonly errorPath: string };
  readonly #exited: Promise<unknown>;
  readonly #turn = new Semaphore(1);
  readonly #over = new AbortController();
  #waiting: { resolve(answer: HelperAnswer): void; reject(error: unknown): void } | undefined;

  constructor(child: Child, options: HelperOptions & { readonly consolePath: string; readonly errorPath: string }) {
    this.#child = child;
    this.#options = options;
    this.#exited = once(child, "exit").catch(() => undefined); // The words in the logs tell why.
    void this.#exited.then(() => this.#end(new Error("the helper machine ended")));
    const reader = new AnswerReader();
    child.stdin?.on("error", () => undefined); // Its end tells.
    child.stdout?.on("data", (piece: Buffer) => {
      try {
        const answer = reader.push(piece);
        if (answer === undefined) return;
        if (this.#waiting === undefined) throw new Error("the helper machine spoke without being asked");
        this.#waiting.resolve(answer);
        this.#waiting = undefined;
      } catch (error) {
        this.#end(error);
      }
    });
    void this.#watch();
  }

  async ask(words: readonly (string | Uint8Array)[], body?: Uint8Array, msMax = requestMsMax) {
    const request = encodeRequest(words, body);
    return await this.#turn.run(async () => {
      this.#options.signal?.throwIfAborted();
      const answer = await this.#exchange(request, msMax);
      if (answer.state !== "failed") return { ...answer, state: answer.state };
      throw new Fault("DataDamaged", `could not ${shownWord(words[0])} in the clone's disks: ${plain(answer.words[0] ?? "")}`, {
        evidence: { request: words.slice(0, 4).map(shownWord).join(" ").slice(0, 400), said: plain(answer.words[1] ?? "") },
      });
    });
  }

  async #exchange(request: Buffer, msMax: number): Promise<HelperAnswer> {
    if (this.#over.signal.aborted) throw await this.#lost(this.#over.signal.reason);
    const { clock, signal } = this.#options;
    const done = new AbortController();
    const answered = new Promise<HelperAnswer>((resolve, reject) => (this.#waiting = { resolve, reject }));
    this.#child.stdin?.write(request);
    const stops = [done.signal, ...(signal === undefined ? [] : [signal])];
    const late = clock.sleep(msMax, AbortSignal.any(stops)).then(
      () => this.#end(new Error(`the helper machine did not answer within ${msMax / 1000} s`)),
      () => (signal?.aborted === true ? this.#end(signal.reason) : undefined),
    );
    try {
      return await answered;
    } catch (error) {
      throw await this.#lost(error);
    } finally {
      done.abort();
      await late;
    }
  }

  async #lost(cause: unknown): Promise<unknown> {
    const { consolePath, errorPath, signal } = this.#options;
    if (signal?.aborted === true) return signal.reason;
    const [console, output] = await Promise.all([consolePath, errorPath].map(async (path) => await readFile(path, "utf8").catch(() => "")));
    return new Fault("LandingFailed", "could not open the clone's disks in the helper machine", {
      causes: ["the recovery point cannot be read", "the helper machine's kernel gave up on a damaged disk"],
      evidence: { reason: plain(String(cause)), console: plain((console ?? "").slice(-1000)), output: plain((output ?? "").slice(-1000)) },
      cause,
    });
  }

  /** What the machine may say and how long it may live is bounded. */
  async #watch(): Promise<void> {
    const { clock, consolePath } = this.#options;
    const endMs = clock.monotonicMs() + lifeMsMax;
    while (!this.#over.signal.aborted) {
      await clock.sleep(watchMs, this.#over.signal).catch(() => undefined); // Its end wakes it.
      const size = await stat(consolePath).then(
        (found) => found.size,
        () => 0,
      );
      if (size > consoleBytesMax) this.#end(new Error("the helper machine said too much"));
      if (clock.monotonicMs() > endMs) this.#end(new Error("the helper machine lived too long"));
    }
  }

  #end(reason: unknown): void {
    if (!this.#over.signal.aborted) this.#over.abort(reason);
    this.#child.kill("SIGKILL");
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end(new Error("the helper machine was closed"));
    await this.#exited;
  }
}

function shownWord(word: string | Uint8Array = ""): string {
  return plain(Buffer.from(word).toString("utf8"));
}

function plain(text: string): string {
  return text.replaceAll(/[^\x20-\x7e\n]/g, "?").slice(0, 2000);
}
