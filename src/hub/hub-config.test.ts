// The configuration: defaults, refusals, and the addresses that a network gives to endpoints.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "../contract/errors.ts";
import { containsRange, endpointAddresses, parseHubConfig } from "./hub-config.ts";

const minimal = { domain: "watari.test", stateDir: "/tmp/x", publicAddresses: ["127.0.0.1"] };
const networkOf = (network: object) => parseHubConfig({ ...minimal, networks: [{ virtualNetwork: "n", ...network }] }).networks[0];

test("a small configuration has a default for everything else", () => {
  const config = parseHubConfig(minimal);
  assert.deepEqual([config.managementPort, config.endpointPort, config.networks], [443, 443, []]);
});

test("endpoints get addresses after the network's own, never the resolver's, inside what was allowed", () => {
  const network = networkOf({ cidr: "127.7.0.0/29", dnsAddress: "127.7.0.5" });
  assert.ok(network);
  assert.deepEqual([...endpointAddresses(network)], ["127.7.0.4", "127.7.0.6"]);
  const limited = networkOf({ cidr: "10.200.0.0/24", interface: "br0", endpointAddresses: { first: "10.200.0.9", last: "10.200.0.10" } });
  assert.ok(limited);
  assert.deepEqual([...endpointAddresses(limited)], ["10.200.0.9", "10.200.0.10"]);
});

test("ranges know what they contain", () => {
  assert.deepEqual(
    ["10.0.0.0/24", "10.0.0.128/25", "10.0.1.0/24", "10.0.0.0/16", "nonsense"].map((inner) => containsRange("10.0.0.0/24", inner)),
    [true, true, false, false, false],
  );
});

for (const [claim, change] of [
  ["a network without interface outside loopback", { networks: [{ virtualNetwork: "n", cidr: "10.0.0.0/24" }] }],
  ["a domain in upper case", { domain: "Watari.Test" }],
  ["no public address", { publicAddresses: [] }],
  ["an interface name with a space", { networks: [{ virtualNetwork: "n", cidr: "10.0.0.0/24", interface: "a b" }] }],
] as const)
  test(`${claim} is refused`, () => {
    assert.throws(
      () => parseHubConfig({ ...minimal, ...change }),
      (error) => error instanceof Fault && error.code === "InputInvalid",
    );
  });
