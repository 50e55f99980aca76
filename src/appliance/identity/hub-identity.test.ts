// The appliance's certificate is renewed by itself when little of its life is left, and not before.

import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, type Clock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { createConnector } from "../../connectivity/connector.ts";
import { parseApplianceConfig } from "../config/config.ts";
import type { FactName, SealedFacts } from "../state/facts.ts";
import { startFakeHub } from "../testing/fake-hub.ts";
import { HubIdentity } from "./hub-identity.ts";
import { readRegistration, topologyOf, useRegistrationKey } from "./hub-registration.ts";

const dayMs = 86_400_000;

test("HubIdentity renews when a quarter of the certificate's life is left, and keeps nothing of the one before", async () => {
  await using hub = await startFakeHub();
  const kept = new Map<FactName, string>();
  const facts: SealedFacts = {
    read: (name) => kept.get(name),
    write: (name, value) => void kept.set(name, value),
    remove: (name) => void kept.delete(name),
  };
  const config = parseApplianceConfig({ listenAddresses: ["127.0.0.1"], hosts: [...hub.hosts], hubPort: hub.port });
  const key = hub.createKey();
  const registration = await useRegistrationKey(key, { config, facts, clock: systemClock, log: silentLog, siteNames: [] });
  let aheadMs = 0;
  const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs };
  const topology = topologyOf(key, { config, siteNames: [] });
  await using identity = new HubIdentity({
    ...{ registration, facts, hubPort: hub.port, clock, log: silentLog, onGrant: () => undefined },
    connect: (clientCertificate) =>
      createConnector({ topology, clock: systemClock, log: silentLog, caPem: registration.hubCaPem, clientCertificate }),
  });
  const lifeMs = identity.endsAtMs - systemClock.nowMs();
  aheadMs = Math.floor(lifeMs * 0.7);
  await identity.renewWhenDue();
  assert.equal(readRegistration(facts)?.certPem, registration.certPem, "not yet");
  aheadMs = Math.floor(lifeMs * 0.75) + 2 * dayMs;
  await identity.renewWhenDue();
  const renewed = readRegistration(facts);
  assert.ok(renewed !== undefined && renewed.certPem !== registration.certPem && renewed.privateKeyPem !== registration.privateKeyPem);
  assert.equal(renewed.previous, undefined);
  assert.equal(kept.has("hubIdentityDraft"), false);
});
