// Isolated subnets hold the guest's own address and ours beside it, never the same one.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { subnetFor } from "./subnet.ts";

const mac = "52:54:00:00:00:01";
const valueOf = (text: string) => text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);

describe("subnetFor", () => {
  it("gives the guest its address and us another one of the same subnet", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(255), { minLength: 4, maxLength: 4 }), fc.integer({ min: 8, max: 29 }), (octets, prefixLength) => {
        const address = octets.join(".");
        const subnet = subnetFor(mac, `${address}/${prefixLength}`);
        const size = 2 ** (32 - prefixLength);
        assert.equal(subnet.guestAddress, address);
        assert.notEqual(subnet.ownAddress, address);
        assert.equal(Math.floor(valueOf(subnet.ownAddress) / size), Math.floor(valueOf(address) / size));
      }),
    );
  });

  it("takes /24 when no length is told, and its own range for what is no address", () => {
    assert.equal(subnetFor(mac, "10.10.0.1").ownAddress, "10.10.0.254");
    assert.equal(subnetFor(mac, "10.10.0.20").netmask, "255.255.255.0");
    for (const odd of [undefined, "", "300.1.1.1", "10.0.0.1/31", "fe80::1", "10.0.0.1; rm"]) {
      const { guestAddress, ownAddress, rangeFirst, rangeLast } = subnetFor(mac, odd);
      assert.deepEqual([guestAddress, ownAddress, rangeFirst, rangeLast], [undefined, "192.0.2.1", "192.0.2.10", "192.0.2.245"]);
    }
  });
});
