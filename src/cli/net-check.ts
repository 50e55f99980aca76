// `watari net check`: tries every way of one role of a plan from this machine, hop by hop, and says what mends what fails.

import { readFile } from "node:fs/promises";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { systemClock, toTimestamp } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { renderCheckPage } from "../connectivity/check-page.ts";
import { askPac } from "../connectivity/pac.ts";
import { planMatrix, topologyOf, type PlanRole } from "../connectivity/plan/matrix.ts";
import type { PlanDocument } from "../connectivity/plan/plan-document.ts";
import { targetsOf } from "../connectivity/plan/targets.ts";
import { probeAll, type CheckResult, type ProbeTarget } from "../connectivity/probe.ts";
import { parseTopology } from "../connectivity/topology.ts";
import { formatTable, printAnswer, say } from "./output.ts";
import { wantRole } from "./net-roles.ts";

/** A hop failed: the network or a peer. */
const exitWithFailures = 4;

export interface CheckWish {
  readonly plan: PlanDocument;
  readonly roleId: string;
  /** PEM of the authority of private names. */
  readonly caFile?: string;
  readonly asJson: boolean;
  /** Where the result is also written as a page. */
  readonly htmlFile?: string;
}

export async function checkPlan({ plan, roleId, caFile, asJson, htmlFile }: CheckWish): Promise<void> {
  const matrix = planMatrix(plan);
  const role = wantRole(matrix, roleId);
  const { targets: planned, untried } = targetsOf(
    matrix.cells.filter((cell) => cell.role === role),
    plan.lines,
  );
  const targets = await withPac(plan, role, planned);
  const caPem = caFile === undefined ? {} : { caPem: await readFile(caFile, "utf8") };
  say(`trying ${targets.length} ways of ${role.id} from this machine`);
  const startedMs = systemClock.monotonicMs();
  const checks = await probeAll(targets, { topology: parseTopology(topologyOf(plan, role)), clock: systemClock, log: silentLog, ...caPem });
  const tookMs = Math.round(systemClock.monotonicMs() - startedMs);
  const passed = !checks.some(({ verdict }) => verdict === "fail");
  printAnswer({ asJson }, { role: role.id, passed, tookMs, checks, untried }, () => checksText(checks, untried, tookMs));
  if (htmlFile !== undefined) await writeCheckPage(htmlFile, { subject: `role ${role.id} of a plan`, tookMs, checks, untried });
  if (!passed) process.exitCode = exitWithFailures;
}

/** Each target with what the zone's proxy auto-configuration says of it. */
async function withPac(plan: PlanDocument, role: PlanRole, targets: readonly ProbeTarget[]): Promise<readonly ProbeTarget[]> {
  const file = plan.proxies[plan.zones[role.zone]?.proxy ?? ""]?.pacFile;
  if (file === undefined) return targets;
  const answers = await askPac(
    file,
    targets.map(({ host }) => host),
  );
  return targets.map((target) => ({ ...target, pac: { file, answer: answers.get(target.host) ?? "" } }));
}

/** A page is made for other people to read: unlike other files of ours it is no secret. */
export async function writeCheckPage(path: string, result: Omit<Parameters<typeof renderCheckPage>[0], "title" | "madeAt">): Promise<void> {
  const madeAt = toTimestamp(systemClock.nowMs());
  await writeFileAtomic(path, renderCheckPage({ title: "Check of the ways of a closed network", madeAt, ...result }), { mode: 0o644 });
  say(`written: ${path}`);
}

/** One row a target; the hop that failed, with its repair, below. */
function checksText(
  checks: readonly CheckResult[],
  untried: readonly { readonly id: string; readonly reason: string }[],
  tookMs: number,
): string {
  const byTarget = [...Map.groupBy(checks, ({ id }) => id.slice(0, id.lastIndexOf("/")))];
  const rows = byTarget.map(([id, hops]) => {
    const failed = hops.find(({ verdict }) => verdict === "fail");
    const last = hops.findLast(({ verdict }) => verdict === "pass");
    const took = hops.reduce((sum, { latencyMs }) => sum + latencyMs, 0);
    const shown = failed ?? last;
    return [
      failed === undefined ? "✔" : "✖",
      id,
      hops[0]?.to ?? "",
      `${Math.round(took)} ms`,
      `${shown?.hop ?? ""}: ${shown?.answer ?? ""}`,
    ];
  });
  const failures = checks.filter(({ verdict }) => verdict === "fail");
  const repairs = [...Map.groupBy(failures, repairOf)].map(([repair, alike]) =>
    [...alike.map(failureText), `    repair    ${repair}`].join("\n"),
  );
  const left = untried.map(({ id, reason }) => `not tried: ${id}: ${reason}`);
  const verdict = `${byTarget.length - failures.length} of ${byTarget.length} ways hold, ${(tookMs / 1000).toFixed(1)} s`;
  return [formatTable(["", "TO", "HOST", "TOOK", "LAST HOP"], rows), "", ...repairs, ...left, verdict].join("\n");
}

function repairOf({ repair, answer }: CheckResult): string {
  return repair ?? answer;
}

function failureText({ id, tried, answer, fault }: CheckResult): string {
  const evidence = Object.entries(fault?.evidence ?? {}).map(([name, value]) => `${name} ${[value].flat().join(", ")}`);
  return [`✖ ${id}`, `    tried     ${tried}`, `    answer    ${answer}`, ...evidence.map((line) => `    evidence  ${line}`)].join("\n");
}
