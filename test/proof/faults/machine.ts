// A simulated machine that never stops writing, with the agent's real program on it, and the digest of its disk at each freeze.

import { createHash, randomBytes, randomInt, randomUUID } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { registerSimulatedAgent, startSimulatedAgent, type RunningAgent } from "../../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../../src/agent/sim/simulated-source.ts";
import type { ArmedFreeze, Freeze } from "../../../src/agent/source.ts";
import { systemClock, type Clock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { Semaphore } from "../../../src/base/semaphore.ts";
import { parseDiskId, type MachineId } from "../../../src/contract/ids.ts";

/** An hour of the agents passes in twelve minutes. More haste, and on a busy machine an appliance at work would be taken for a dead one. */
export const agentHaste = 5;
const diskBytes = 8 << 20;
const writeEveryMs = 5;
export const proofDiskId = parseDiskId("serial-0");

/** The agents' time runs faster, so that their waits are short; what they tell the time by is the real one. */
const hastyClock: Clock = {
  nowMs: () => systemClock.nowMs(),
  monotonicMs: () => systemClock.monotonicMs() * agentHaste,
  sleep: async (waitMs, signal) => await systemClock.sleep(waitMs / agentHaste, signal),
};

export interface Way {
  readonly controlPort: number;
  readonly dataPort: number;
  readonly authorityPem: string;
  readonly passphrase: string;
}

export class ProofMachine implements AsyncDisposable {
  readonly name: string;
  readonly facts: { readonly smbiosUuid: string; readonly osMachineId: string };
  /** SHA-256 of the disk at each moment at which it was frozen. */
  readonly frozen = new Set<string>();
  writtenBytes = 0;
  readonly #folder: string;
  readonly #source: SimulatedSource;
  /** A write that began before a freeze ends before it. */
  readonly #one = new Semaphore(1);
  readonly #ending = new AbortController();
  readonly #writing: Promise<void>;
  #isResting = false;
  #agent: RunningAgent | undefined;
  #machineId: MachineId | undefined;

  private constructor(parts: {
    readonly name: string;
    readonly folder: string;
    readonly source: SimulatedSource;
    readonly facts: ProofMachine["facts"];
  }) {
    this.name = parts.name;
    this.facts = parts.facts;
    this.#folder = parts.folder;
    this.#source = this.#witness(parts.source);
    this.#writing = this.#write();
  }

  static async open(name: string, parent: string): Promise<ProofMachine> {
    const folder = join(parent, name);
    await mkdir(folder);
    await writeFile(join(folder, "disk"), randomBytes(diskBytes));
    const ids = { smbiosUuid: randomUUID(), osMachineId: randomUUID().replaceAll("-", "") };
    const names = { hostname: name, ...ids, bootId: randomUUID(), osName: "o", kernelRelease: "k" };
    const facts = { ...names, firmware: "bios" as const, cpuCount: 1, memoryBytes: 1, addresses: [], nics: [] };
    const disk = { diskId: proofDiskId, deviceName: "d0", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
    const source = await SimulatedSource.open({
      ...{ clock: hastyClock, random: systemRandom, facts },
      disks: [{ path: join(folder, "disk"), facts: disk }],
    });
    return new ProofMachine({ name, folder, source, facts: ids });
  }

  get machineId(): MachineId {
    if (this.#machineId === undefined) throw new Error(`assertion failed: ${this.name} is registered`);
    return this.#machineId;
  }

  /** Registers at an appliance over this way, in place of the one before, and starts the agent. What it knows of changes stays. */
  async join(way: Way): Promise<void> {
    await this.leave();
    const stateFolder = join(this.#folder, "agent");
    await mkdir(stateFolder, { recursive: true });
    for (const name of ["identity.json", "key.pem", "certificate.pem", "authority.pem"]) await rm(join(stateFolder, name), { force: true });
    const passphraseFile = join(this.#folder, "passphrase");
    await writeFile(passphraseFile, way.passphrase, { mode: 0o600 });
    const options = { source: this.#source, stateFolder, clock: hastyClock, random: systemRandom };
    const appliance = { host: "127.0.0.1", port: way.controlPort };
    this.#machineId = await registerSimulatedAgent({ ...options, appliance, authorityPem: way.authorityPem, passphraseFile });
    const identityFile = join(stateFolder, "identity.json");
    const identity = JSON.parse(await readFile(identityFile, "utf8")) as object;
    await writeFile(identityFile, JSON.stringify({ ...identity, dataPort: way.dataPort }));
    this.#agent = startSimulatedAgent(options);
  }

  async leave(): Promise<void> {
    await this.#agent?.[Symbol.asyncDispose]();
    this.#agent = undefined;
  }

  /** Nothing is written until `go`; resolves with the digest of the disk. */
  async rest(): Promise<string> {
    this.#isResting = true;
    return await this.#one.run(async () => await this.#digest());
  }

  go(): void {
    this.#isResting = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave();
    this.#ending.abort();
    await this.#writing;
    await this.#source[Symbol.asyncDispose]();
  }

  #witness(source: SimulatedSource): SimulatedSource {
    const armFreeze = async (limits: { readonly msMax: number }): Promise<ArmedFreeze> => {
      const armed = await SimulatedSource.prototype.armFreeze.call(source, limits);
      const freeze = async (): Promise<Freeze> =>
        await this.#one.run(async () => {
          const held = await armed.freeze();
          this.frozen.add(await this.#digest());
          return held;
        });
      return { ...armed, freeze };
    };
    return Object.assign(source, { armFreeze });
  }

  async #digest(): Promise<string> {
    return createHash("sha256")
      .update(await readFile(join(this.#folder, "disk")))
      .digest("hex");
  }

  /** Small writes all over, now and then a long one. */
  async #write(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      await systemClock.sleep(writeEveryMs, signal).catch(() => undefined); // The loop's head sees the abort.
      if (this.#isResting || signal.aborted) continue;
      const length = randomInt(50) === 0 ? 200_000 : randomInt(1, 9000);
      await this.#one.run(async () => await this.#source.write(proofDiskId, randomInt(diskBytes - length), randomBytes(length)));
      this.writtenBytes += length;
    }
  }
}
