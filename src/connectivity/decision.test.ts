// The decision's promises: private never by proxy, undeclared refused, private over site over public.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decide } from "./decision.ts";
import { renderBypassList, renderHosts, renderNoProxy } from "./render.ts";
import { parseTopology } from "./topology.ts";

const topology = parseTopology({
  privateNames: ["acct.blob.test", ".privatelink.test"],
  privateRanges: ["10.200.0.0/24"],
  siteNames: ["vcenter.site.test", "10.9.9.9"],
  siteRanges: ["10.10.0.0/20"],
  publicNames: [".blob.test", "login.test"],
  proxy: { url: "http://10.10.0.1:3128/" },
});

test("decide finds the way of each kind of host", () => {
  const ways = {
    "acct.blob.test": "private",
    "ACCT.blob.test.": "private",
    "a.privatelink.test": "private",
    "a.b.privatelink.test": "private",
    "10.200.0.4": "private",
    "vcenter.site.test": "site",
    "10.9.9.9": "site",
    "10.10.15.255": "site",
    "other.blob.test": "proxy",
    "login.test": "proxy",
    "privatelink.test": "undeclared",
    "blob.test": "undeclared",
    "xlogin.test": "undeclared",
    "login.test.evil.test": "undeclared",
    "10.201.0.4": "undeclared",
    "": "undeclared",
  };
  for (const [host, kind] of Object.entries(ways)) assert.equal(decide(topology, host).kind, kind, host);
});

test("decide sends public names directly where there is no proxy", () => {
  assert.equal(decide(parseTopology({ publicNames: ["login.test"] }), "login.test").kind, "public");
});

test("decide never gives a private name to a proxy, whatever else is declared", () => {
  const name = fc.stringMatching(/^[a-z]{1,4}(\.[a-z]{1,4}){1,2}$/);
  fc.assert(
    fc.property(name, fc.array(name, { maxLength: 5 }), (host, others) => {
      const publicNames = [`.${host.slice(host.indexOf(".") + 1)}`, ...others.filter((other) => other !== host)];
      const mixed = parseTopology({ privateNames: [host], siteNames: [host], publicNames, proxy: { url: "http://p.test:1" } });
      assert.equal(decide(mixed, host).kind, "private");
    }),
  );
});

test("renderNoProxy uses only forms that mean the same everywhere, and lists what it left out", () => {
  const { text, omitted } = renderNoProxy(topology);
  assert.equal(text, "acct.blob.test,.privatelink.test,vcenter.site.test,10.9.9.9");
  assert.deepEqual(
    omitted.map(({ entry }) => entry),
    ["10.200.0.0/24", "10.10.0.0/20"],
  );
});

test("renderBypassList writes suffixes and octet ranges with a star, and lists what it left out", () => {
  const { text, omitted } = renderBypassList(topology);
  assert.equal(text, "acct.blob.test;*.privatelink.test;vcenter.site.test;10.9.9.9;10.200.0.*");
  assert.deepEqual(
    omitted.map(({ entry }) => entry),
    ["10.10.0.0/20"],
  );
});

test("renderHosts writes each address and name once, sorted", () => {
  const entries = [
    { name: "b.test", addresses: ["10.0.0.2"] },
    { name: "a.test", addresses: ["10.0.0.1", "10.0.0.1"] },
  ];
  assert.equal(renderHosts(entries), "10.0.0.1\ta.test\n10.0.0.2\tb.test\n");
});
