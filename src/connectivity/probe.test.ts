// The probe's promises: every hop is told, the first that fails carries fault and repair, and the rest is skipped, not guessed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { probeAll, type CheckResult, type ProbeTarget } from "./probe.ts";
import { createAuthority } from "./test-certificates.ts";
import { freeTcpPort, skipUnless, startDns, startProxy, startSite } from "./test-network.ts";
import { parseTopology, type TopologyDocument } from "./topology.ts";

const authority = await createAuthority();
const tls = await authority.issue(["private.test", "public.test"]);

async function probe(document: TopologyDocument, target: Omit<ProbeTarget, "id" | "role">): Promise<readonly CheckResult[]> {
  const options = { topology: parseTopology(document), clock: systemClock, log: silentLog, caPem: authority.caPem };
  return await probeAll([{ id: "t", role: "appliance", ...target }], options);
}

function verdicts(results: readonly CheckResult[]): Record<string, string> {
  return Object.fromEntries(results.map((result) => [result.hop, result.fault?.id ?? result.verdict]));
}

test(
  "probeAll passes every hop of a private way and tells addresses, server and certificate",
  { skip: skipUnless("dnsmasq") },
  async () => {
    await using site = await startSite((_request, response) => response.writeHead(401).end(), tls);
    await using dns = await startDns({ "private.test": ["127.0.0.1"] });
    const document = { privateNames: ["private.test"], privateRanges: ["127.0.0.0/8"], dnsServers: [`127.0.0.1:${dns.port}`] };
    const results = await probe(document, { host: "private.test", port: site.port, upTo: "https" });
    assert.deepEqual(verdicts(results), {
      ...{ decision: "pass", dns: "pass", route: "pass", proxy: "skipped", tcp: "pass" },
      ...{ tls: "pass", http: "pass", clock: "pass", packets: "pass" },
    });
    const answers = Object.fromEntries(results.map((result) => [result.hop, result.answer]));
    assert.equal(answers["dns"], `127.0.0.1 from 127.0.0.1:${dns.port}`);
    assert.match(answers["tls"] ?? "", /^TLSv1\.3 private\.test by test authority, until /);
    assert.equal(answers["http"], "HTTP 401");
    assert.ok(results.every((result) => result.role === "appliance" && result.latencyMs >= 0));
    assert.equal(results.find((result) => result.hop === "tcp")?.to, `private.test:${site.port}`);
  },
);

test("probeAll passes a public way through the proxy", { skip: skipUnless("squid") }, async () => {
  await using site = await startSite((_request, response) => response.end(), tls);
  await using proxy = await startProxy({ allowed: { "public.test": "127.0.0.1" } });
  const document = { publicNames: ["public.test"], proxy: { url: `http://127.0.0.1:${proxy.port}` } };
  const results = await probe(document, { host: "public.test", port: site.port, upTo: "https" });
  assert.deepEqual(verdicts(results), {
    ...{ decision: "pass", dns: "skipped", route: "skipped", proxy: "pass", tcp: "skipped" },
    ...{ tls: "pass", http: "pass", clock: "pass", packets: "pass" },
  });
});

test("probeAll stops at the hop that fails and says what mends it", { skip: skipUnless("dnsmasq") }, async () => {
  await using dns = await startDns({ "private.test": ["198.51.100.7"] });
  const near = { privateNames: ["private.test", "missing.test"], privateRanges: ["127.0.0.0/8"] };
  const dnsServers = [`127.0.0.1:${dns.port}`];
  const leak = await probe({ ...near, dnsServers }, { host: "private.test", port: 443, upTo: "https" });
  assert.deepEqual(verdicts(leak), {
    ...{ decision: "pass", dns: "PrivateNamePublic", route: "skipped", proxy: "skipped", tcp: "skipped" },
    ...{ tls: "skipped", http: "skipped", clock: "skipped", packets: "skipped" },
  });
  assert.match(leak.find((result) => result.verdict === "fail")?.repair ?? "", /getent ahosts private\.test/);
  const missing = await probe({ ...near, dnsServers }, { host: "missing.test", port: 443, upTo: "tcp" });
  assert.deepEqual(verdicts(missing), { decision: "pass", dns: "NameUnresolved", route: "skipped", proxy: "skipped", tcp: "skipped" });
  const undeclared = await probe(near, { host: "other.test", port: 443, upTo: "tcp" });
  assert.deepEqual(verdicts(undeclared), {
    decision: "HostUndeclared",
    dns: "skipped",
    route: "skipped",
    proxy: "skipped",
    tcp: "skipped",
  });
});

test("probeAll finds a closed port, an expired certificate and a failing service", async () => {
  const hosts = [{ name: "private.test", addresses: ["127.0.0.1"] }];
  const near = { privateNames: ["private.test"], privateRanges: ["127.0.0.0/8"], hosts };
  const closed = await probe(near, { host: "private.test", port: await freeTcpPort(), upTo: "tls" });
  assert.equal(verdicts(closed)["tcp"], "ConnectionFailed");
  await using old = await startSite((_request, response) => response.end(), await authority.issue(["private.test"], -1));
  const expired = await probe(near, { host: "private.test", port: old.port, upTo: "tls" });
  assert.deepEqual([verdicts(expired)["tls"], expired.at(-1)?.fault?.evidence["code"]], ["TlsRefused", "CERT_HAS_EXPIRED"]);
  await using broken = await startSite((_request, response) => response.writeHead(503).end());
  const failing = await probe(near, { host: "private.test", port: broken.port, upTo: "http" });
  const answered = failing.find(({ hop }) => hop === "http");
  assert.deepEqual([answered?.fault?.id, answered?.fault?.evidence["status"]], ["PeerFailed", 503]);
});

const near = {
  privateNames: ["private.test"],
  privateRanges: ["127.0.0.0/8"],
  hosts: [{ name: "private.test", addresses: ["127.0.0.1"] }],
};

test(
  "probeAll finds sources of names that differ, and an address that is not the expected one",
  { skip: skipUnless("dnsmasq") },
  async () => {
    await using fresh = await startDns({ "private.test": ["127.0.0.1"] });
    await using stale = await startDns({ "private.test": ["127.0.0.9"] });
    const { hosts: _hosts, ...names } = near;
    const dnsServers = [`127.0.0.1:${fresh.port}`, `127.0.0.1:${stale.port}`];
    const differing = await probe({ ...names, dnsServers }, { host: "private.test", port: 443, upTo: "tcp" });
    assert.equal(verdicts(differing)["dns"], "NameAnswersDiffer");
    assert.match(
      differing.find(({ hop }) => hop === "dns")?.repair ?? "",
      new RegExp(`^make 127.0.0.1:${stale.port} answer private.test with 127.0.0.1;`),
    );
    const staleHosts = await probe({ ...near, dnsServers: dnsServers.slice(1) }, { host: "private.test", port: 443, upTo: "tcp" });
    assert.equal(verdicts(staleHosts)["dns"], "NameAnswersDiffer");
    const target = { host: "private.test", port: 443, upTo: "tcp", expectedAddresses: ["127.0.0.5"] } as const;
    const unexpected = await probe({ ...names, dnsServers: dnsServers.slice(0, 1) }, target);
    assert.deepEqual(unexpected.find(({ hop }) => hop === "dns")?.fault?.evidence["expected"], ["127.0.0.5"]);
  },
);

test("probeAll tells TLS that something in between signs anew, and trusts it when told to", { skip: skipUnless("squid") }, async () => {
  const inspection = await createAuthority("inspection");
  await using site = await startSite((_request, response) => response.end(), await inspection.issue(["public.test"]));
  await using proxy = await startProxy({ allowed: { "public.test": "127.0.0.1" } });
  const document = { publicNames: ["public.test"], proxy: { url: `http://127.0.0.1:${proxy.port}` } };
  const target = { host: "public.test", port: site.port, upTo: "https" } as const;
  const seen = await probe(document, target);
  assert.deepEqual(
    [verdicts(seen)["tls"], seen.find(({ hop }) => hop === "tls")?.fault?.evidence["issuer"]],
    ["TlsAuthorityUnknown", "inspection"],
  );
  const options = { topology: parseTopology(document), clock: systemClock, log: silentLog, caPem: inspection.caPem };
  const trusted = await probeAll([{ id: "t", role: "appliance", ...target }], options);
  assert.equal(verdicts(trusted)["http"], "pass");
});

test("probeAll finds a clock that is an hour off", async () => {
  await using site = await startSite((_request, response) => response.end());
  const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + 3_600_000 };
  const options = { topology: parseTopology(near), clock, log: silentLog };
  const results = await probeAll([{ id: "t", role: "agent", host: "private.test", port: site.port, upTo: "http" }], options);
  assert.equal(verdicts(results)["clock"], "ClockSkewed");
  assert.match(results.find(({ hop }) => hop === "clock")?.answer ?? "", /clock is 360[01] s ahead of that of private\.test/);
});

test("probeAll finds a way that loses large packets", async () => {
  await using site = await startSite((request, response) => {
    if (request.headers["x-watari-padding"] === undefined) response.end();
    else request.socket.destroy(); // As a link does for which the packets are too large, only sooner.
  });
  const results = await probe(near, { host: "private.test", port: site.port, upTo: "http" });
  assert.deepEqual([verdicts(results)["http"], verdicts(results)["packets"]], ["pass", "PacketsLost"]);
});
