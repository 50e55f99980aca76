// Breaks a closed network in every known way: shows what the check found, the repair that it printed, and the result after it.

import { systemClock } from "../../src/base/clock.ts";
import { networkCases, type NetworkCase } from "./network/cases.ts";
import { ProofSite, type Checked } from "./network/site.ts";

interface Row {
  readonly case: string;
  readonly isRight: boolean;
  readonly found: string;
  readonly repair: string;
  readonly after: string;
  readonly seconds: number;
  readonly wrong?: unknown;
}

/** The promise of the whole check: from three roles, over fifteen ways, in less than this. */
const wholeMsMax = 10_000;
const endpointCountMin = 15;

const isJson = process.argv.includes("--json");
const only = process.argv.slice(2).find((argument) => !argument.startsWith("--"));
const say = (line: string): void => void process.stderr.write(`${line}\n`);

function failures({ checks }: Checked): Checked["checks"] {
  return checks.filter(({ verdict }) => verdict === "fail");
}

async function runCase(site: ProofSite, kase: NetworkCase): Promise<Row> {
  const startMs = systemClock.monotonicMs();
  const broken = await kase.breakIt(site);
  let [before, after]: readonly (Checked | undefined)[] = [];
  try {
    before = kase.by === "site" ? await site.checkSite() : await site.check(broken.plan, broken.prefixed);
  } finally {
    await broken.repair();
  }
  try {
    after = kase.by === "site" ? await site.checkSite() : await site.check(broken.repairedPlan);
  } finally {
    await broken.cleanUp?.();
  }
  const told = failures(before).find(({ hop, fault }) => hop === kase.hop && fault?.id === kase.fault);
  const isRight = told !== undefined && kase.repairSays.test(told.repair ?? "") && after.passed;
  return {
    ...{ case: kase.name, isRight, found: told === undefined ? "not what was expected" : told.answer, repair: told?.repair ?? "" },
    after: after.passed ? "every way holds" : `${failures(after).length} ways fail`,
    seconds: Math.round((systemClock.monotonicMs() - startMs) / 100) / 10,
    ...(isRight ? {} : { wrong: { expected: `${kase.hop} ${kase.fault}`, before: failures(before), after: failures(after) } }),
  };
}

await using site = await ProofSite.open();
const first = await site.check();
say(
  `before anything is broken: ${new Set(first.checks.map(({ to }) => to)).size} ways, ${failures(first).length} fail, ${(first.tookMs / 1000).toFixed(1)} s`,
);
const whole = await site.checkSite(await site.startSite());
const ways = new Set(whole.checks.map(({ id }) => id.slice(0, id.lastIndexOf("/"))));
const roles = ["agent", "appliance", "hub"].filter((role) => whole.checks.some((check) => check.role === role));
const isWhole = whole.passed && roles.length === 3 && ways.size >= endpointCountMin && whole.tookMs < wholeMsMax;
say(
  `${isWhole ? "✔" : "✖"} by the hub's order from ${roles.join(", ")}: ${ways.size} ways, ${failures(whole).length} fail, ${(whole.tookMs / 1000).toFixed(1)} s`,
);
if (!isWhole) say(JSON.stringify(failures(whole), undefined, 2));
const rows: Row[] = [];
for (const kase of networkCases.filter(({ name }) => only === undefined || name.includes(only))) {
  const row = await runCase(site, kase);
  rows.push(row);
  say(
    `${row.isRight ? "✔" : "✖"} ${row.case} (${row.seconds} s)\n    found   ${row.found}\n    repair  ${row.repair}\n    after   ${row.after}`,
  );
  if (row.wrong !== undefined) say(JSON.stringify(row.wrong, undefined, 2));
}
const wrongCount = rows.filter(({ isRight }) => !isRight).length;
const isGood = wrongCount === 0 && first.passed && isWhole && rows.length > 0;
say(`${rows.length} cases, ${wrongCount} wrong; the whole check took ${(first.tookMs / 1000).toFixed(1)} s`);
if (isJson)
  process.stdout.write(
    `${JSON.stringify({ isGood, checkMs: first.tookMs, whole: { roles, wayCount: ways.size, tookMs: whole.tookMs, isWhole }, rows }, undefined, 2)}\n`,
  );
process.exitCode = isGood ? 0 : 1;
