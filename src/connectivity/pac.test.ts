// A proxy auto-configuration that sends a name another way than the plan is found before anything is connected; what the engine says is compared, not guessed.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { tryCommand } from "../base/run-command.ts";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { askPac, isPacAnswerRight } from "./pac.ts";
import { parsePlan } from "./plan/plan-document.ts";
import { planMatrix } from "./plan/matrix.ts";
import { targetsOf } from "./plan/targets.ts";
import { wholePlan } from "./plan/test-plans.ts";
import { probeAll } from "./probe.ts";
import { parseTopology } from "./topology.ts";

test("an answer is right when its first way is the decided one", () => {
  const proxy = "http://10.10.0.1:3128";
  for (const [answer, proxyUrl] of [
    ["DIRECT", undefined],
    [" direct ; PROXY 10.10.0.1:3128", undefined],
    ["PROXY 10.10.0.1:3128", proxy],
    ["PROXY 10.10.0.1:3128; DIRECT", proxy],
    ["HTTPS proxy.corp.test:443", "https://proxy.corp.test"],
    ["PROXY 10.10.0.1:80", "http://10.10.0.1"],
  ] as const)
    assert.equal(isPacAnswerRight(answer, proxyUrl), true, answer);
  for (const [answer, proxyUrl] of [
    ["PROXY 10.10.0.1:3128; DIRECT", undefined],
    ["DIRECT; PROXY 10.10.0.1:3128", proxy],
    ["PROXY 10.10.0.2:3128", proxy],
    ["PROXY 10.10.0.1", proxy],
    ["SOCKS 10.10.0.1:3128", proxy],
    ["HTTPS 10.10.0.1:3128", proxy],
    ["", undefined],
    ["", proxy],
  ] as const)
    assert.equal(isPacAnswerRight(answer, proxyUrl), false, answer);
});

test("a private name that the file sends to the proxy fails before any packet, with the repair", async () => {
  const topology = parseTopology({
    privateNames: ["private.test"],
    privateRanges: ["127.0.0.0/8"],
    hosts: [{ name: "private.test", addresses: ["127.0.0.1"] }],
  });
  const pac = { file: "proxy.pac", answer: "PROXY 10.10.0.1:3128" };
  const target = { id: "t", role: "appliance", host: "private.test", port: 1, upTo: "tcp" as const, pac };
  const results = await probeAll([target], { topology, clock: systemClock, log: silentLog });
  const failed = results.find(({ verdict }) => verdict === "fail");
  assert.deepEqual([failed?.hop, failed?.fault?.id], ["pac", "PacAnswerWrong"]);
  assert.match(failed?.repair ?? "", /watari net render pac.*private\.test with DIRECT/);
  assert.equal(results.find(({ hop }) => hop === "tcp")?.verdict, "skipped");
});

test("the engine answers for each host, and says which file is none", async (context) => {
  if ((await tryCommand("/usr/bin/python3", ["-c", "import pacparser"])).exitCode !== 0)
    return context.skip("not installed: python3-pacparser");
  const folder = await mkdtemp(join(tmpdir(), "watari-pac-"));
  try {
    const [good, bad] = [join(folder, "good.pac"), join(folder, "bad.pac")];
    await writeFile(good, `function FindProxyForURL(url, host) { return host === "a.test" ? "DIRECT" : "PROXY p.test:3128"; }\n`);
    await writeFile(bad, "this is no script {");
    assert.deepEqual(
      [...(await askPac(good, ["a.test", "b.test", "a.test"]))],
      [
        ["a.test", "DIRECT"],
        ["b.test", "PROXY p.test:3128"],
      ],
    );
    await assert.rejects(askPac(bad, ["a.test"]), { code: "InputInvalid" });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("over a line that translates, a connection that fails is told with the address that the filter sees", () => {
  const lines = wholePlan.lines.map((line) => ({ ...line, nat: true }));
  const repairsOf = (plan: object): readonly (string | undefined)[] => {
    const parsed = parsePlan(plan);
    const cells = planMatrix(parsed).cells.filter(({ role, endpoint }) => role.id === "appliance" && endpoint.kind === "private");
    return targetsOf(cells, parsed.lines).targets.map(({ repairs }) => repairs?.["ConnectionFailed"]);
  };
  const translated = repairsOf({ ...wholePlan, lines });
  assert.ok(translated.length > 0 && translated.every((repair) => repair?.includes("from the address that it translates to")));
  assert.ok(repairsOf(wholePlan).every((repair) => repair === undefined));
});
