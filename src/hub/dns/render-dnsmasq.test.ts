// The resolver's configuration: what it says for zones, and that the order of its input does not matter.

import assert from "node:assert/strict";
import { test } from "node:test";
import { aliasOf, renderDnsmasq } from "./render-dnsmasq.ts";

const zones = [
  { zone: "privatelink.blob.example.test", records: [{ name: "acct", addresses: ["10.0.0.4"] }] },
  {
    zone: "plain.test",
    records: [
      { name: "@", addresses: ["10.0.0.9"] },
      { name: "a.b", addresses: ["10.0.0.5", "10.0.0.6"] },
    ],
  },
];
const serving = { address: "10.0.0.53", port: 53, serial: "s1" };

test("private link records answer for the public name by a CNAME, other zones do not", () => {
  const lines = renderDnsmasq({ ...serving, zones }).split("\n");
  for (const line of [
    "listen-address=10.0.0.53",
    "local=/privatelink.blob.example.test/",
    "host-record=acct.privatelink.blob.example.test,10.0.0.4",
    "cname=acct.blob.example.test,acct.privatelink.blob.example.test",
    "host-record=plain.test,10.0.0.9",
    "host-record=a.b.plain.test,10.0.0.6",
  ])
    assert.ok(lines.includes(line), line);
  assert.equal(lines.filter((line) => line.startsWith("cname=")).length, 1);
  assert.equal(aliasOf("plain.test", "a"), undefined);
});

test("the same names in another order are the same configuration", () => {
  const turned = zones.toReversed().map(({ zone, records }) => ({ zone, records: records.toReversed() }));
  assert.equal(renderDnsmasq({ ...serving, zones: turned }), renderDnsmasq({ ...serving, zones }));
});
