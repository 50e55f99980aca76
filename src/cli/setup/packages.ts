// Installs missing Debian packages: says which and why, starts no service, does nothing when nothing is missing.

import { confirm as askAtTerminal, isCancel } from "@clack/prompts";
import { existsSync } from "node:fs";
import { tryCommand, type CommandResult } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { say } from "../output.ts";
import { disableNewServices, withServicesHeld } from "./service-guard.ts";

const lockWaitSeconds = 300;
const aptTimeoutMs = 20 * 60_000;

export interface NeededPackage {
  readonly name: string;
  /** A file or folder that is there when the package is; the package database is asked unless told. */
  readonly proof?: string;
  readonly why: string;
}

export interface EnsureOptions {
  /** What the packages are for: "the demo". Printed. */
  readonly purpose: string;
  /** announce: say it and install. ask: at a terminal ask first; elsewhere only say what to run. */
  readonly confirm: "announce" | "ask";
  readonly system?: PackageSystem;
}

/** The machine, as far as set-up touches it. Tests give their own. */
export interface PackageSystem {
  readonly isRoot: boolean;
  readonly isTerminal: boolean;
  /** Folder under which the system's files lie; "/" on a real machine. */
  readonly root: string;
  run(program: string, args: readonly string[]): Promise<CommandResult>;
  exists(path: string): boolean;
  ask(question: string): Promise<boolean>;
}

/**
 * Makes sure that every package is there. Answers the names that it installed. Throws MissingProgram with the exact command
 * where it may not or cannot install: without root, without apt, or when the operator says no.
 */
export async function ensurePackages(list: readonly NeededPackage[], options: EnsureOptions): Promise<readonly string[]> {
  const system = options.system ?? thisMachine();
  const missing = await findMissing(list, system);
  if (missing.length === 0) return [];
  const names = missing.map((needed) => needed.name);
  say(`${options.purpose} needs ${names.length} more Debian package${names.length === 1 ? "" : "s"}:`);
  const width = Math.max(...names.map((name) => name.length));
  for (const { name, why } of missing) say(`  ${name.padEnd(width)}  ${why}`);
  if (!system.isRoot || !system.exists("/usr/bin/apt-get")) throw missingProgram(names, options.purpose, system);
  if (options.confirm === "ask" && !(system.isTerminal && (await system.ask("Install them now with apt-get?")))) {
    throw missingProgram(names, options.purpose, system);
  }
  await install(names, options.purpose, system);
  return names;
}

/** Packages of the list that this machine lacks. */
export async function findMissing(
  list: readonly NeededPackage[],
  system: PackageSystem = thisMachine(),
): Promise<readonly NeededPackage[]> {
  const suspects = list.filter(({ proof }) => proof === undefined || !system.exists(proof));
  const unproved = suspects.filter(({ proof }) => proof === undefined);
  if (unproved.length === 0 || !system.exists("/usr/bin/dpkg-query")) return suspects;
  const format = "${Package} ${db:Status-Status}\\n";
  const told = await system.run("dpkg-query", ["-W", "-f", format, ...unproved.map(({ name }) => name)]);
  const installed = new Set(told.stdout.split("\n").flatMap((line) => (line.endsWith(" installed") ? [line.split(" ")[0]] : [])));
  return suspects.filter(({ proof, name }) => proof !== undefined || !installed.has(name));
}

async function install(names: readonly string[], purpose: string, system: PackageSystem): Promise<void> {
  say("installing with apt-get; services that come along stay off");
  const args = ["install", "-y", "-q", "--no-install-recommends", "-o", `DPkg::Lock::Timeout=${lockWaitSeconds}`, ...names];
  await withServicesHeld(system.root, async () => {
    const first = await system.run("apt-get", args);
    if (first.exitCode === 0) return;
    // The package lists may be missing or old; with fresh ones the same call is tried once more.
    await system.run("apt-get", ["update", "-q", "-o", `DPkg::Lock::Timeout=${lockWaitSeconds}`]);
    const second = await system.run("apt-get", args);
    if (second.exitCode === 0) return;
    throw new Fault("MissingProgram", `could not install what ${purpose} needs: apt-get ended with ${second.exitCode}`, {
      evidence: { packages: [...names], told: second.stderr.trim().slice(-1500) },
      action: `run ${commandFor(names, system)} and read what it says`,
    });
  });
  await disableNewServices(names, system);
  say(`installed ${names.join(" ")}`);
}

function missingProgram(names: readonly string[], purpose: string, system: PackageSystem): Fault {
  const isDebian = system.exists("/usr/bin/apt-get");
  const action = isDebian
    ? `run: ${commandFor(names, system)}`
    : `on Debian 12 run: ${commandFor(names, system)}; here, install the programs that these packages hold`;
  return new Fault("MissingProgram", `${purpose} needs packages that are not installed`, { evidence: { packages: [...names] }, action });
}

function commandFor(names: readonly string[], system: PackageSystem): string {
  return `${system.isRoot ? "" : "sudo "}apt-get install --no-install-recommends ${names.join(" ")}`;
}

function thisMachine(): PackageSystem {
  return {
    isRoot: process.getuid?.() === 0,
    isTerminal: process.stdin.isTTY && process.stderr.isTTY,
    root: "/",
    run: async (program, args) => {
      const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", NEEDRESTART_SUSPEND: "1", LC_ALL: "C.UTF-8" };
      return await tryCommand(program, args, { timeoutMs: aptTimeoutMs, env });
    },
    exists: existsSync,
    ask: async (question) => {
      const answer = await askAtTerminal({ message: question });
      return !isCancel(answer) && answer;
    },
  };
}
