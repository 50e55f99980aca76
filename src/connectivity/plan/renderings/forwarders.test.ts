// Promises of forwarders: only the private zones are asked elsewhere, each once, and every form names each zone and server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { forwarderForms, zonesToForward } from "./forwarders.ts";

const names = [
  "1234-asr-pod01-id1.east.privatelink.siterecovery.corp.example",
  "1234-asr-pod01-rcm1.east.privatelink.siterecovery.corp.example",
  "packs.privatelink.blob.corp.example",
  "packs.blob.corp.example",
  "privatelink.blob.corp.example",
];

test("zones begin at privatelink; a name without it is forwarded alone, and nothing else of its zone", () => {
  const zones = ["packs.blob.corp.example", "privatelink.blob.corp.example", "privatelink.siterecovery.corp.example"];
  assert.deepEqual(zonesToForward(names), zones);
  assert.deepEqual(zonesToForward(["notprivatelink.corp.example"]), ["notprivatelink.corp.example"]);
});

test("every form has each zone with each server", () => {
  const zones = zonesToForward(names);
  for (const [form, { write }] of Object.entries(forwarderForms)) {
    const text = write({ zones, servers: ["10.200.0.53", "10.200.0.54"] }).join("\n");
    for (const part of [...zones, "10.200.0.53", "10.200.0.54"]) assert.ok(text.includes(part), `${form}: ${part}`);
  }
});
