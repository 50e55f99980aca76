// `watari dev`: the checks, tests and benchmarks of a checkout, each with its time, all failures shown, one exit code.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { glob, mkdtemp, readFile, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { tryCommand } from "../base/run-command.ts";
import { forEachParallel } from "../base/semaphore.ts";
import { say } from "./output.ts";
import { packagesFor } from "./setup/package-lists.ts";
import { ensurePackages } from "./setup/packages.ts";

const projectRoot = join(import.meta.dirname, "../..");
const checkTimeoutMs = 5 * 60_000;
const unitTestTimeoutMs = 2 * 60_000;
const systemTestTimeoutMs = 30 * 60_000;
/** Bound of one whole run of the tests' runner, far above what it takes. */
const runTimeoutMs = 120 * 60_000;
/** The claims take two to three hours on a machine of four processors. */
const benchTimeoutMs = 300 * 60_000;

/** Every claim of replication, beside its peers. */
const benches = ["bench/claims.ts"];
const slowBenches = ["bench/vault.ts", "bench/demo.ts", "bench/landing.ts", "bench/hub.ts"];

interface Check {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
}

const bin = (name: string): string => join(projectRoot, "node_modules/.bin", name);

const checks: readonly Check[] = [
  { name: "types", program: bin("tsc"), args: ["-p", "."] },
  { name: "types of the contract, without Node", program: bin("tsc"), args: ["-p", "tsconfig.contract.json"] },
  { name: "types of the set-up page, in a browser", program: bin("tsc"), args: ["-p", "src/setup-ui/view"] },
  { name: "lint", program: bin("oxlint"), args: [] },
  { name: "format", program: bin("oxfmt"), args: ["--check", "."] },
  { name: "layers", program: process.execPath, args: ["tools/check-layers.ts"] },
  { name: "tidy", program: process.execPath, args: ["tools/check-tidy.ts"] },
  { name: "docs", program: process.execPath, args: ["tools/check-docs.ts"] },
  { name: "unused", program: bin("knip"), args: ["--no-progress"] },
];

export function registerDevCommand(program: Command): void {
  const noun = program.command("dev", { hidden: true }).description("checks, tests and benchmarks of this checkout");
  noun
    .command("check")
    .description("types, lint, format and house rules")
    .action(async () => finish([await runChecks()]));
  noun
    .command("test")
    .description("set-up, all checks, all unit tests, and the demo as a test")
    .argument("[patterns...]", "only the tests of these files, without checks")
    .option("--slow", "also every other test in test/system, one at a time: real guests, an hour and more")
    .action(
      async (patterns: readonly string[], options: { readonly slow?: boolean }) =>
        await runEverything(patterns, options.slow === true ? "slow" : "gate"),
    );
  noun
    .command("openapi")
    .description("write what follows from the hub's table of resource types: docs/api and the table of rights")
    .action(async () => finish([await runInherited(process.execPath, ["src/hub/openapi/write-documents-child.ts"], checkTimeoutMs)]));
  noun
    .command("bench")
    .description("measure every claim of replication beside its peers, or what the files given measure")
    .argument("[names...]", "files in bench/, or their names: hub")
    .option("--slow", "also those that boot machines or take half an hour")
    .option("--quick", "small numbers, to see that it works; only of those that know it")
    .option("--json <file>", "figures as JSON into a file; of those that know it")
    .action(async (names: readonly string[], { slow, quick, json }: BenchOptions) => {
      const args = [...(quick === true ? ["--quick"] : []), ...(json === undefined ? [] : ["--json", resolve(json)])];
      finish([await runBenches(names, { isSlowToo: slow === true, args })]);
    });
  noun
    .command("conformance")
    .description("drive a hub with Microsoft's unmodified SDKs: every test of test/conformance, each against an ephemeral hub")
    .argument("[files...]", "files in test/conformance")
    .option("--lab", "the article's journey against a real lab: a real guest, five minutes and more")
    .option("--json", "with --lab: a report as JSON on stdout")
    .action(async (files: readonly string[], options: { readonly lab?: boolean; readonly json?: boolean }) =>
      finish([options.lab === true ? await runLabConformance(options.json === true ? ["--json"] : []) : await runConformance(files)]),
    );
  addPackage(noun);
  addImage(noun);
  noun
    .command("proof")
    .description("run one proof of test/proof: a promise that is kept under every kind of harm, shown in figures")
    .argument("<name>", "for example durability")
    .argument("[options...]", "of that proof: --quick and --json of each; the first lines of its file name the others")
    .allowUnknownOption()
    .action(async (name: string, options: readonly string[]) => finish([await runProof(name, options)]));
}

interface BenchOptions {
  readonly slow?: boolean;
  readonly quick?: boolean;
  readonly json?: string;
}

function addPackage(noun: Command): void {
  noun
    .command("package")
    .description("make a Debian package of a program, the same bytes for the same commit")
    .argument("<program>", "hub or appliance")
    .option("--out <dir>", "where to", "dist")
    .option("--dirty", "also from a checkout with changes that are in no commit")
    .option("--version <version>", "instead of the one that package.json and the commit tell")
    .option("--json", "answer as JSON on stdout")
    .action(async (name: string, options: PackageOptions) => {
      const { out, dirty, version, json } = options;
      const more = [...(dirty === true ? ["--dirty"] : []), ...(version === undefined ? [] : ["--version", version])];
      const args = [name, "--out", resolve(out), ...more, ...(json === true ? ["--json"] : [])];
      const program = ["--disable-warning=ExperimentalWarning", "packaging/package-command.ts", ...args];
      finish([await runInherited(process.execPath, program, runTimeoutMs)]);
    });
}

function addImage(noun: Command): void {
  noun
    .command("image")
    .description("make the appliance's image for hypervisors, an OVA; as root")
    .option("--out <dir>", "where to", "dist")
    .option("--dirty", "also from a checkout with changes that are in no commit")
    .option("--version <version>", "instead of the one that package.json and the commit tell")
    .option("--json", "answer as JSON on stdout")
    .action(async ({ out, dirty, version, json }: PackageOptions) => {
      const more = [...(dirty === true ? ["--dirty"] : []), ...(version === undefined ? [] : ["--version", version])];
      const args = ["--out", resolve(out), ...more, ...(json === true ? ["--json"] : [])];
      const program = ["--disable-warning=ExperimentalWarning", "packaging/appliance-image/image-command.ts", ...args];
      finish([await runInherited(process.execPath, program, runTimeoutMs)]);
    });
}

interface PackageOptions {
  readonly out: string;
  readonly dirty?: boolean;
  readonly version?: string;
  readonly json?: boolean;
}

/** One of the parts said no: exit code 1. */
function finish(passes: readonly boolean[]): void {
  if (passes.includes(false)) process.exitCode = 1;
}

async function runChecks(): Promise<boolean> {
  const failed: string[] = [];
  await forEachParallel(checks, Math.max(2, availableParallelism()), async ({ name, program, args }) => {
    const startedMs = systemClock.monotonicMs();
    const env = { ...process.env, NO_COLOR: "1" };
    const { exitCode, stdout, stderr } = await tryCommand(program, args, { cwd: projectRoot, timeoutMs: checkTimeoutMs, env });
    const seconds = ((systemClock.monotonicMs() - startedMs) / 1000).toFixed(1);
    say(`${exitCode === 0 ? "✔" : "✖"} ${name} (${seconds} s)`);
    if (exitCode === 0) return;
    failed.push(name);
    say(`${stdout}\n${stderr}`.trim().replaceAll(/^/gm, "    "));
  });
  say(failed.length === 0 ? "all checks passed" : `checks that failed: ${failed.join(", ")}`);
  return failed.length === 0;
}

const totalsShape = z.object({
  tests: z.number(),
  suites: z.number(),
  passed: z.number(),
  failed: z.number(),
  cancelled: z.number(),
  skipped: z.number(),
  todo: z.number(),
});
type Totals = z.infer<typeof totalsShape>;

/** The system tests that every change must pass; the others take longer than a change should wait. */
const gateSystemTests: readonly string[] = ["test/system/demo.test.ts"];

async function runEverything(patterns: readonly string[], scope: "gate" | "slow"): Promise<void> {
  const startedMs = systemClock.monotonicMs();
  await ensurePackages(packagesFor("test"), { purpose: "watari dev test", confirm: "announce" });
  const areChecksGood = patterns.length > 0 || (await runChecks());
  const all = await findTests(patterns.length > 0 ? patterns : ["{src,tools,lab,test,bench,packaging}/**/*.test.ts"]);
  const isChosen = patterns.length > 0 || scope === "slow" ? () => true : (path: string) => gateSystemTests.includes(path);
  const systemTests = all.filter((path) => path.startsWith("test/system/") && isChosen(path));
  const unitTests = all.filter((path) => !path.startsWith("test/system/"));
  const runs = [
    await runTests(unitTests, { concurrency: Math.max(2, availableParallelism()), timeoutMs: unitTestTimeoutMs }),
    await runTests(systemTests, { concurrency: 1, timeoutMs: systemTestTimeoutMs }),
  ];
  printTotals(
    runs.flatMap(({ totals }) => totals ?? []),
    systemClock.monotonicMs() - startedMs,
  );
  finish([areChecksGood, all.length > 0, ...runs.map(({ isGood }) => isGood)]);
  if (!areChecksGood) say("the checks failed; see above");
}

async function findTests(patterns: readonly string[]): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const path of glob([...patterns], { cwd: projectRoot })) found.push(path);
  return found.toSorted();
}

interface TestRun {
  readonly isGood: boolean;
  readonly totals: Totals | undefined;
}

/** Runs the files with Node's test runner, its report on stdout. */
async function runTests(files: readonly string[], limits: { readonly concurrency: number; readonly timeoutMs: number }): Promise<TestRun> {
  if (files.length === 0) return { isGood: true, totals: undefined };
  const folder = await mkdtemp(join(tmpdir(), "watari-test-"));
  try {
    const totalsFile = join(folder, "totals.json");
    const reporters = ["spec", "stdout", join(projectRoot, "tools/test-totals.ts"), totalsFile];
    const args = [
      "--disable-warning=ExperimentalWarning",
      "--test",
      `--test-concurrency=${limits.concurrency}`,
      `--test-timeout=${limits.timeoutMs}`,
      ...reporters.map((value, index) => (index % 2 === 0 ? `--test-reporter=${value}` : `--test-reporter-destination=${value}`)),
      ...files,
    ];
    const isGood = await runInherited(process.execPath, args, runTimeoutMs);
    const text = await readFile(totalsFile, "utf8").catch(() => undefined); // Absent when the runner itself broke; isGood tells.
    return { isGood, totals: text === undefined || text === "" ? undefined : totalsShape.parse(JSON.parse(text)) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The same lines as the test runner's own summary, over all runs, so that the end of the output holds the whole truth. */
function printTotals(runs: readonly Totals[], tookMs: number): void {
  const sum = (key: keyof Totals): number => runs.reduce((total, run) => total + run[key], 0);
  const names = { tests: "tests", suites: "suites", pass: "passed", fail: "failed", cancelled: "cancelled", skipped: "skipped" } as const;
  const lines = Object.entries(names).map(([label, key]) => `ℹ ${label} ${sum(key)}`);
  process.stdout.write(`\n${[...lines, `ℹ todo ${sum("todo")}`, `ℹ duration_ms ${Math.round(tookMs)}`].join("\n")}\n`);
}

async function runBenches(
  names: readonly string[],
  { isSlowToo, args }: { readonly isSlowToo: boolean; readonly args: readonly string[] },
): Promise<boolean> {
  await ensurePackages(packagesFor("bench"), { purpose: "watari dev bench", confirm: "announce" });
  const chosen = names.map((name) => (name.endsWith(".ts") ? name : `bench/${name}.ts`));
  const found = chosen.length > 0 ? chosen : [...benches, ...(isSlowToo ? slowBenches : [])];
  const failed: string[] = [];
  // One after the other: a measurement wants the machine for itself.
  for (const file of found) {
    say(`bench ${file}`);
    if (!(await runInherited(process.execPath, ["--disable-warning=ExperimentalWarning", file, ...args], benchTimeoutMs)))
      failed.push(file);
  }
  say(failed.length === 0 ? `${found.length} benchmarks done` : `benchmarks that failed: ${failed.join(", ")}`);
  return failed.length === 0 && found.length > 0;
}

async function runLabConformance(args: readonly string[]): Promise<boolean> {
  await ensurePackages(packagesFor("test"), { purpose: "watari dev conformance", confirm: "announce" });
  const program = ["--disable-warning=ExperimentalWarning", "test/conformance/lab-journey.ts", ...args];
  return await runInherited(process.execPath, program, runTimeoutMs);
}

async function runConformance(files: readonly string[]): Promise<boolean> {
  await ensurePackages(packagesFor("test"), { purpose: "watari dev conformance", confirm: "announce" });
  const found = files.length > 0 ? files : await findTests(["test/conformance/*.test.ts"]);
  const { isGood, totals } = await runTests(found, { concurrency: 2, timeoutMs: unitTestTimeoutMs });
  return isGood && totals !== undefined;
}

async function runProof(name: string, args: readonly string[]): Promise<boolean> {
  const proofs = await findTests(["test/proof/*-proof.ts"]);
  const found = proofs.find((path) => path === `test/proof/${name}-proof.ts`);
  if (found !== undefined)
    return await runInherited(process.execPath, ["--disable-warning=ExperimentalWarning", found, ...args], runTimeoutMs);
  say(`there is no proof ${name}; there are: ${proofs.map((path) => path.slice("test/proof/".length, -"-proof.ts".length)).join(", ")}`);
  return false;
}

async function runInherited(program: string, args: readonly string[], timeoutMs: number): Promise<boolean> {
  const child = spawn(program, args, { cwd: projectRoot, stdio: ["ignore", "inherit", "inherit"], timeout: timeoutMs });
  const ending: readonly unknown[] = await once(child, "exit");
  return ending[0] === 0;
}
