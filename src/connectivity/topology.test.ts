// The topology's promises: what is accepted, what is refused, and that a refusal never shows a credential.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fault } from "../contract/errors.ts";
import { parseAddressRanges } from "./address-range.ts";
import { normaliseHost, parseTopology, splitServerAddress, topologyFromKey } from "./topology.ts";

test("parseTopology brings names to one spelling", () => {
  const topology = parseTopology({ privateNames: ["Blob.Example.TEST.", "*.Privatelink.example.test"], siteNames: ["10.1.2.3"] });
  assert.deepEqual(topology.privateNames, ["blob.example.test", ".privatelink.example.test"]);
  assert.deepEqual(topology.siteNames, ["10.1.2.3"]);
  assert.deepEqual(topology.dnsServers, []);
});

test("parseTopology names each wrong field", () => {
  const wrong = { privateNames: ["a b"], privateRanges: ["10.0.0.0/33"], dnsServers: ["resolver.test"], unknownField: 1 };
  assert.throws(
    () => parseTopology(wrong),
    (error: unknown) => {
      assert.ok(error instanceof Fault);
      assert.equal(error.code, "InputInvalid");
      const problems = JSON.stringify(error.evidence);
      for (const field of ["privateNames.0", "privateRanges.0", "dnsServers.0", "unknownField"]) assert.match(problems, new RegExp(field));
      return true;
    },
  );
});

test("parseTopology refuses a proxy address with a password, without showing it", () => {
  assert.throws(
    () => parseTopology({ proxy: { url: "http://anna:geheim@proxy.test:3128" } }),
    (error: unknown) => error instanceof Fault && !JSON.stringify(error.evidence).includes("geheim"),
  );
});

test("parseTopology refuses a name that is private and public at once", () => {
  assert.throws(() => parseTopology({ privateNames: ["a.test"], publicNames: ["A.test"] }), { name: "Fault", code: "InputInvalid" });
});

test("topologyFromKey holds the services, the key's names and the site's settings", () => {
  const services = { id1: "V-id1.x.test", rcm1: "v-rcm1.x.test", srs1: "v-srs1.x.test", tel1: "v-tel1.x.test", prot2: "v-prot2.x.test" };
  const key = { services, privateNames: ["acct.blob.test"], privateRanges: ["10.200.0.0/24"], publicNames: ["login.test"] };
  const topology = topologyFromKey(key, { proxy: { url: "http://10.10.0.1:3128" } });
  assert.deepEqual(topology.privateNames, ["acct.blob.test", "v-id1.x.test", ...Object.values(services).slice(1)]);
  assert.equal(topology.proxy?.url, "http://10.10.0.1:3128");
});

test("AddressRanges hold what the prefix says, for every IPv4 address and prefix", () => {
  fc.assert(
    fc.property(fc.nat({ max: 0xffffffff }), fc.integer({ min: 0, max: 32 }), fc.nat({ max: 0xffffffff }), (network, prefix, other) => {
      const shift = BigInt(32 - prefix);
      const expected = BigInt(network) >> shift === BigInt(other) >> shift;
      assert.equal(parseAddressRanges([`${dotted(network)}/${prefix}`]).contains(dotted(other)), expected);
    }),
  );
});

test("AddressRanges see an IPv4 address inside its IPv6 form, and refuse texts that are no range", () => {
  const ranges = parseAddressRanges(["10.200.0.0/24", "fd00:1::/32"]);
  assert.equal(ranges.contains("::ffff:10.200.0.9"), true);
  assert.equal(ranges.contains("fd00:1::7"), true);
  assert.equal(ranges.contains("fd00:2::7"), false);
  assert.equal(ranges.contains("not an address"), false);
  for (const text of ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0/8", "fd00::/129", "10.0.0.0/8/8", ""]) {
    assert.throws(() => parseAddressRanges([text]), TypeError, text);
  }
});

test("splitServerAddress reads addresses with and without port", () => {
  assert.deepEqual(splitServerAddress("192.0.2.1"), { address: "192.0.2.1", port: 53 });
  assert.deepEqual(splitServerAddress("192.0.2.1:5353"), { address: "192.0.2.1", port: 5353 });
  assert.deepEqual(splitServerAddress("fd00::1"), { address: "fd00::1", port: 53 });
  assert.deepEqual(splitServerAddress("[fd00::1]:5353"), { address: "fd00::1", port: 5353 });
  for (const text of ["name:53", "192.0.2.1:0", "192.0.2.1:65536", "[192.0.2.1", ""])
    assert.equal(splitServerAddress(text), undefined, text);
});

test("normaliseHost gives one spelling", () => {
  assert.equal(normaliseHost("A.Test."), "a.test");
  assert.equal(normaliseHost("[FD00::1]"), "fd00::1");
});

function dotted(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
}
