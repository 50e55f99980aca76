// One lab with hub and appliance for tests that break things: its set-up, and the questions that such tests ask again and again.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { landingNetwork, makeStage, operate, type Stage, stageOf, startAppliance, startHub, stopProgram } from "../../lab/demo/stage.ts";
import { clear } from "../../lab/demo/demo.ts";
import { type LabFacts, labUp } from "../../lab/lab.ts";
import type { LabMachine, MachineRequest } from "../../lab/machine.ts";
import { labExec, waitUntil } from "../../lab/processes.ts";
import type { CommandResult } from "../../src/base/run-command.ts";
import { Fault, type FaultReport } from "../../src/contract/errors.ts";
import { faultReportShape } from "../../src/contract/shapes.ts";
import { Desk } from "./desk.ts";

export const vault = "vault1";
export const policy = "every-5-seconds";
export const waitMsMax = 240_000;

const statusShape = z.looseObject({
  registration: z.looseObject({ applianceId: z.string() }).optional(),
  vcenters: z.array(z.looseObject({ name: z.string() })),
  spoolBytes: z.number(),
  healthErrors: z.array(faultReportShape),
});
const pointsShape = z.array(
  z.looseObject({
    name: z.string(),
    properties: z.looseObject({
      providerSpecificDetails: z.looseObject({ watari: z.looseObject({ mode: z.string(), readBytes: z.number(), timeMs: z.number() }) }),
    }),
  }),
);
type Point = z.infer<typeof pointsShape>[number];
const credentialsShape = z.object({ credentials: z.array(z.object({ name: z.string(), credentialId: z.string() })) });

export class Trial implements AsyncDisposable {
  readonly stage: Stage;
  readonly facts: LabFacts;
  readonly desk: Desk;

  private constructor(stage: Stage, facts: LabFacts) {
    this.stage = stage;
    this.facts = facts;
    this.desk = new Desk(stage);
  }

  /** Lab and hub up, with a vault that an appliance can be registered in. What an earlier run left under the prefix goes first. */
  static async open(prefix: string, machines: readonly MachineRequest[]): Promise<Trial> {
    const stage = stageOf(prefix);
    await clear(stage);
    try {
      await makeStage(stage);
      const facts = await labUp({ prefix, machines, progress: (text) => void process.stderr.write(`${text}\n`) });
      const trial = new Trial(stage, facts);
      await startHub(stage, facts);
      await trial.#keepSecrets();
      await trial.#makeVault();
      return trial;
    } catch (error) {
      await clear(stage);
      throw error;
    }
  }

  machine(name: string): LabMachine {
    const machine = this.facts.machines.find((each) => each.name === name);
    assert.ok(machine !== undefined, name);
    return machine;
  }

  /** Arguments of an appliance command. */
  appliance(...args: readonly string[]): readonly string[] {
    return ["appliance", ...args, "--state", this.stage.applianceState];
  }

  async startAppliance(): Promise<void> {
    await startAppliance(this.stage, async () => await this.isRunning(this.stage.applianceState));
  }

  /** Ends the appliance, writes other settings, and starts it again. */
  async setUpAnew(...settings: readonly string[]): Promise<void> {
    await stopProgram(this.stage, "appliance");
    await this.desk.run(...this.appliance("init", ...this.siteSettings(), ...settings));
    await this.startAppliance();
  }

  siteSettings(): readonly string[] {
    return ["--listen", this.facts.applianceAddress, "--dns", this.facts.zones.onprem.resolver];
  }

  async isRunning(stateFolder: string): Promise<boolean> {
    try {
      await operate(this.stage, ["appliance", "status", "--state", stateFolder]);
      return true;
    } catch (error) {
      if (error instanceof Fault && error.code === "ApplianceNotRunning") return false;
      throw error;
    }
  }

  async status(stateFolder = this.stage.applianceState): Promise<z.infer<typeof statusShape>> {
    return statusShape.parse(await this.desk.run("appliance", "status", "--state", stateFolder));
  }

  /** Waits until the appliance's health shows this fault, and answers it. */
  async healthFault(code: FaultReport["id"], isMeant: (fault: FaultReport) => boolean = () => true): Promise<FaultReport> {
    let found: FaultReport | undefined;
    await waitUntil(`${code} in the appliance's health`, waitMsMax, async () => {
      found = (await this.status()).healthErrors.find((fault) => fault.id === code && isMeant(fault));
      return found !== undefined;
    });
    assert.ok(found !== undefined);
    return found;
  }

  async waitHealthy(): Promise<void> {
    let last: readonly FaultReport[] = [];
    await waitUntil("an appliance without faults", waitMsMax, async () => {
      last = (await this.status()).healthErrors;
      return last.length === 0;
    }).catch((error: unknown) => {
      throw new Error(`the appliance still shows ${JSON.stringify(last)}`, { cause: error });
    });
  }

  async accountId(name: string): Promise<string> {
    const { credentials } = credentialsShape.parse(await this.desk.run(...this.appliance("credential", "list")));
    const found = credentials.find((credential) => credential.name === name);
    assert.ok(found !== undefined, name);
    return found.credentialId;
  }

  /** Newest first. */
  async points(name: string): Promise<readonly Point[]> {
    return pointsShape.parse(await this.desk.run("machine", "points", name, "--vault", vault));
  }

  /** Waits until a point was made of a state later than what `before` shows, and answers all later ones, newest first. */
  async pointsAfter(name: string, before: readonly Point[]): Promise<readonly Point[]> {
    const known = new Set(before.map((point) => point.name));
    let later: readonly Point[] = [];
    await waitUntil(`the next recovery point of ${name}`, waitMsMax, async () => {
      later = (await this.points(name)).filter((point) => !known.has(point.name));
      return later.length > 0;
    });
    return later;
  }

  /** Runs a command as root of a source machine, past everything that is tested; answers its output. */
  async inGuest(name: string, command: string): Promise<string> {
    const result = await this.#ssh(name, command);
    assert.equal(result.exitCode, 0, `${command}\n${result.stderr}`);
    return result.stdout.trim();
  }

  /** Waits until a machine that has just booted can be logged in to. */
  async waitLogin(name: string): Promise<void> {
    await waitUntil(`the SSH server of ${name}`, waitMsMax, async () => (await this.#ssh(name, "true")).exitCode === 0);
  }

  async #ssh(name: string, command: string): Promise<CommandResult> {
    const known = join(this.stage.folder, `known-hosts-${name}`);
    const options = ["StrictHostKeyChecking=accept-new", `UserKnownHostsFile=${known}`, "BatchMode=yes", "ConnectTimeout=30"];
    const to = `root@${this.machine(name).address}`;
    const argv = ["-i", this.facts.guest.rootKeyFile, ...options.flatMap((option) => ["-o", option]), to, command];
    return await labExec(this.stage.place, "onprem", ["ssh", ...argv], { timeoutMs: waitMsMax });
  }

  async log(name: string): Promise<string> {
    return await readFile(join(this.stage.place.stateFolder, `${name}.log`), "utf8");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    assert.deepEqual(await clear(this.stage), []);
  }

  async #keepSecrets(): Promise<void> {
    const { proxy, vcenter, guest } = this.facts;
    const files = { "the proxy's password": proxy.passwordFile, "the vCenter's password": vcenter.passwordFile };
    for (const [name, file] of Object.entries({ ...files, "the guest's password": guest.passwordFile }))
      this.desk.keepSecret(name, (await readFile(file, "utf8")).trim());
    const operator = z.looseObject({ clientSecret: z.string() }).parse(JSON.parse(await readFile(this.#operatorFile(), "utf8")));
    this.desk.keepSecret("the operator's secret", operator.clientSecret);
  }

  #operatorFile(): string {
    return join(this.stage.hubState, "operator.json");
  }

  async #makeVault(): Promise<void> {
    const { desk } = this;
    const storage = "watarilab1";
    const network = ["--network", landingNetwork];
    await desk.run("login", "--operator-file", this.#operatorFile(), "--proxy", this.facts.proxy.url);
    await desk.run("network", "create", landingNetwork, "--cidr", "10.200.0.0/24");
    await desk.run("storage", "create", storage, ...network);
    await desk.run("vault", "create", vault, "--storage", storage, ...network);
    await desk.run("policy", "create", policy, "--vault", vault, "--interval", "5");
  }
}
