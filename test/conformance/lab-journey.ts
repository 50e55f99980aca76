// The journey against a real lab: closed network, real hub, real appliance and guest; the SDKs run on the operator's desk, behind its proxy.
// Run: npm run conformance -- --lab (root, five minutes on KVM)

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { clear } from "../../lab/demo/demo.ts";
import { makeStage, stageOf, startHub, type Stage } from "../../lab/demo/stage.ts";
import { labStatus, labUp, type LabFacts } from "../../lab/lab.ts";
import { inZone } from "../../lab/processes.ts";
import { requireRoot } from "../../lab/require-root.ts";
import { writeFileAtomic } from "../../src/base/atomic-file.ts";
import { systemClock } from "../../src/base/clock.ts";
import { printFault } from "../../src/cli/output.ts";
import { operatorFileShape, parseJson } from "../../src/cli/profile.ts";
import { asFault } from "../../src/contract/errors.ts";

const prefix = "cf";
const isJson = process.argv.includes("--json");
const startMs = systemClock.monotonicMs();
const secondsNow = (): number => Math.round((systemClock.monotonicMs() - startMs) / 100) / 10;
const say = (text: string): void => void process.stderr.write(`${text}\n`);

const lineShape = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("step"), name: z.string(), isGood: z.boolean(), seconds: z.number() }),
  z.object({ kind: z.literal("note"), text: z.string() }),
]);
type Line = z.infer<typeof lineShape>;

interface Report {
  readonly ok: boolean;
  readonly seconds: number;
  readonly accelerator: LabFacts["accelerator"];
  readonly steps: readonly Extract<Line, { kind: "step" }>[];
  readonly notes: readonly string[];
  /** Packets that tried a way which the closed network forbids. */
  readonly forbiddenPackets: number;
  readonly leftovers: readonly string[];
}

try {
  requireRoot("conformance --lab");
  const report = await run(stageOf(prefix));
  if (isJson) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
  const steps = `${report.steps.filter(({ isGood }) => isGood).length} of ${report.steps.length} steps`;
  say(
    `${report.ok ? "✔" : "✖"} ${steps} in ${report.seconds} s; ${report.forbiddenPackets} forbidden packets; left: ${report.leftovers.join(", ") || "nothing"}`,
  );
  process.exitCode = report.ok ? 0 : 1;
} catch (error) {
  const fault = asFault(error, "run the journey in the lab");
  printFault(fault, { asJson: isJson });
  process.exitCode = fault.exitCode;
}

/** What an earlier run left, killed or not, goes first; everything goes at the end, whatever the end is. */
async function run(stage: Stage): Promise<Report> {
  let outcome: Omit<Report, "ok" | "seconds" | "leftovers"> & { readonly isGood: boolean };
  let left: readonly string[] = [];
  await clear(stage);
  try {
    await makeStage(stage);
    const lab = await labUp({ prefix, progress: say });
    await startHub(stage, lab);
    say(`lab: the hub answers (${secondsNow()} s)`);
    const isGood = await runOnDesk(stage, lab);
    const lines = await readLines(stage);
    const { forbidden } = await labStatus({ prefix });
    const steps = lines.filter((line) => line.kind === "step");
    const notes = lines.flatMap((line) => (line.kind === "note" ? [line.text] : []));
    outcome = { isGood, steps, notes, accelerator: lab.accelerator, forbiddenPackets: forbidden?.total ?? -1 };
  } finally {
    left = await clear(stage);
    for (const each of left) say(`left behind: ${each}`);
  }
  const { isGood, ...facts } = outcome;
  const ok = isGood && facts.steps.length > 0 && facts.forbiddenPackets === 0 && left.length === 0;
  return { ok, seconds: secondsNow(), ...facts, leftovers: left };
}

function linesFile(stage: Stage): string {
  return join(stage.folder, "steps.jsonl");
}

/** The operator's desk reaches the hub's public names by the proxy alone; the SDKs take it from the environment, as everywhere. */
async function runOnDesk(stage: Stage, lab: LabFacts): Promise<boolean> {
  const labFile = join(stage.folder, "lab.json");
  await writeFileAtomic(labFile, JSON.stringify(lab));
  const env = {
    ...process.env,
    HTTPS_PROXY: lab.proxy.url,
    NODE_USE_ENV_PROXY: "1",
    WATARI_CONFORMANCE_HUB: await writeHubFacts(stage),
    WATARI_CONFORMANCE_LAB: labFile,
  };
  const reporters = ["--test-reporter=spec", `--test-reporter-destination=${isJson ? "stderr" : "stdout"}`];
  const lines = [`--test-reporter=${join(import.meta.dirname, "step-reporter.ts")}`, `--test-reporter-destination=${linesFile(stage)}`];
  const test = ["--disable-warning=ExperimentalWarning", "--test", ...reporters, ...lines, join(import.meta.dirname, "journey.test.ts")];
  const [program, ...args] = inZone(stage.place, "onprem", [process.execPath, ...test]);
  const child = spawn(program, args, { env, stdio: ["ignore", "inherit", "inherit"] });
  const ending: readonly unknown[] = await once(child, "exit");
  return ending[0] === 0;
}

async function readLines(stage: Stage): Promise<readonly Line[]> {
  const text = await readFile(linesFile(stage), "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => lineShape.parse(JSON.parse(line)));
}

/** What `watari hub --ephemeral` prints, for this hub. */
async function writeHubFacts(place: Stage): Promise<string> {
  const operatorFile = join(place.hubState, "operator.json");
  const operator = parseJson(await readFile(operatorFile, "utf8"), operatorFileShape, operatorFile);
  const { managementUrl: endpoint, loginUrl: authority, tenantId, clientId, clientSecret, subscriptionId, caPem } = operator;
  const caFile = join(place.folder, "hub-ca.pem");
  await writeFileAtomic(caFile, caPem);
  const file = join(place.folder, "conformance.json");
  // Group and vault of an ephemeral hub; here the journey makes its own.
  const facts = { endpoint, authority, caFile, tenantId, clientId, clientSecret, subscriptionId, resourceGroup: "none", vault: "none" };
  await writeFileAtomic(file, JSON.stringify(facts), { mode: 0o600 });
  return file;
}
