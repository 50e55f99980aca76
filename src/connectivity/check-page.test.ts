// The page of a check: it shows what failed first, says nothing that a browser would run or load, and takes any text.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, toReport } from "../contract/errors.ts";
import type { NetworkCheck } from "../contract/network-check.ts";
import { renderCheckPage } from "./check-page.ts";

const check = (id: string, verdict: NetworkCheck["verdict"], more: Partial<NetworkCheck> = {}): NetworkCheck => ({
  ...{
    id,
    role: "appliance",
    hop: id.slice(id.lastIndexOf("/") + 1),
    to: "a.example.test:443",
    tried: "try",
    answer: "answer",
    latencyMs: 1,
  },
  verdict,
  ...more,
});
const page = { title: "Check", subject: "appliance", madeAt: "2026-01-01T00:00:00Z" };

test("the ways that fail come first, with what mends them once for those that fail alike", () => {
  const repair = "open the firewall";
  const html = renderCheckPage({
    ...page,
    checks: [check("good/dns", "pass"), check("bad/tcp", "fail", { repair }), check("worse/tcp", "fail", { repair })],
  });
  assert.match(html, /2 of 3 ways do not hold/);
  assert.equal(html.match(/<strong>open the firewall<\/strong>/g)?.length, 1);
  assert.ok(html.indexOf("✖ worse") < html.indexOf("✔ good"));
  assert.match(renderCheckPage({ ...page, checks: [check("good/dns", "pass")] }), /All 1 ways hold/);
});

test("what came from the network is shown as text, and the page loads and runs nothing", () => {
  const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`;
  const fault = toReport(new Fault("TlsRefused", evil, { causes: [evil], action: evil, evidence: { [evil]: [evil, evil] } }));
  const html = renderCheckPage({
    ...{ title: evil, subject: evil, madeAt: evil, untried: [{ id: evil, reason: evil }] },
    checks: [check(`${evil}/tls`, "fail", { tried: evil, answer: evil, to: evil, role: evil, from: evil, repair: evil, fault })],
  });
  const tags = [...html.matchAll(/<([a-z0-9]+)/gi)].map(([, name]) => name);
  assert.equal(tags.includes("script") || tags.includes("img") || tags.includes("link"), false);
  const written = html.match(/<[^>]*>/g) ?? [];
  assert.deepEqual(
    written.filter((tag) => /\s(?:src|href|on\w+)=/.test(tag)),
    [],
  );
  assert.equal((html.match(/<tr/g) ?? []).length, (html.match(/<\/tr>/g) ?? []).length);
});
