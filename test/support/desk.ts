// The operator's desk of a test: commands as a person gives them, each fault held to its promise, everything that was said remembered.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runOnDesk, type Stage } from "../../lab/demo/stage.ts";
import type { FaultCode, FaultReport } from "../../src/contract/errors.ts";
import { faultReportShape } from "../../src/contract/shapes.ts";

/** Exit code of the command line for each group of faults that these tests meet: refused by state or rights, network or peer. */
type ExitCode = 3 | 4;

export class Desk {
  readonly #stage: Stage;
  readonly #said: string[] = [];
  readonly #secrets = new Map<string, string>();

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  /** Gives a command that must work; answers what it prints. */
  async run(...args: readonly string[]): Promise<unknown> {
    const { exitCode, stdout, stderr } = await this.#give(args);
    assert.equal(exitCode, 0, `watari ${args.join(" ")}\n${stderr.slice(-4000)}`);
    return JSON.parse(stdout);
  }

  /** Gives a command that must be refused with this fault, told in full to programs and to people. */
  async fails(code: FaultCode, exitCode: ExitCode, ...args: readonly string[]): Promise<FaultReport> {
    const result = await this.#give(args);
    const answer = JSON.parse(result.stdout) as { readonly error?: unknown };
    const fault = faultReportShape.parse(answer.error ?? `no fault: ${result.stdout.slice(0, 2000)}`);
    assert.equal(fault.id, code, result.stderr.slice(-4000));
    assert.equal(result.exitCode, exitCode);
    assertTold(fault);
    for (const part of [fault.id, fault.message, fault.action, ...fault.causes]) assert.ok(result.stderr.includes(part), part);
    return fault;
  }

  /** Gives a command whose answer is bad news of its own, not a fault. */
  async answersBadly(exitCode: ExitCode, ...args: readonly string[]): Promise<unknown> {
    const result = await this.#give(args);
    assert.equal(result.exitCode, exitCode, result.stderr.slice(-4000));
    return JSON.parse(result.stdout);
  }

  /** A file with a secret that must show nowhere. */
  async secretFile(name: string, secret: string): Promise<string> {
    const path = join(this.#stage.folder, name);
    await writeFile(path, secret, { mode: 0o600 });
    this.keepSecret(name, secret);
    return path;
  }

  keepSecret(name: string, secret: string): void {
    assert.ok(secret.length >= 8, `${name} is long enough to be looked for`);
    this.#secrets.set(name, secret);
  }

  /** Fails when a secret occurs in anything that was printed, or in these further texts. */
  assertNoSecret(texts: Readonly<Record<string, string>>): void {
    const all = { ...texts, "the commands' output": this.#said.join("\n") };
    for (const [place, text] of Object.entries(all)) {
      assert.ok(text.length > 0, `${place} is not empty`);
      for (const [name, secret] of this.#secrets) assert.equal(text.includes(secret), false, `${name} occurs in ${place}`);
    }
  }

  async #give(args: readonly string[]): ReturnType<typeof runOnDesk> {
    const result = await runOnDesk(this.#stage, args);
    this.#said.push(args.join(" "), result.stdout, result.stderr);
    return result;
  }
}

/** What every fault promises to a person. */
export function assertTold(fault: FaultReport): void {
  assert.match(fault.message, /^.{10,}[^.]$/s);
  assert.ok(fault.causes.length > 0 && fault.causes.every((cause) => cause.length > 5), JSON.stringify(fault.causes));
  assert.ok(fault.action.length > 10, fault.action);
  assert.ok(Object.keys(fault.evidence).length > 0, "the fault shows what was seen");
}
