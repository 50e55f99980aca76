// Promises of what a process server shows: the documented limits, the worst of them as its health, nothing that was not told.

import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import type { SystemFigures } from "../../contract/appliance-protocol.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import type { Appliance, Telemetry } from "../db/appliances.ts";
import { loadOf, showProcessServer } from "./process-server.ts";
import { isSilent } from "./site-appliances.ts";
import { healthLimits } from "../health/health-rules.ts";

const mebibyte = 2 ** 20;
const calm: SystemFigures = {
  ...{ cpuShare: 0.1, loadShare: 0.2, memoryBytes: 1000, memoryAvailableBytes: 900, diskBytes: 10_000 * mebibyte },
  ...{ diskAvailableBytes: 9000 * mebibyte, uploadedBytesPerSecond: mebibyte, osVersion: "Debian", address: "192.0.2.1" },
};
const nowMs = systemClock.nowMs();
const services = { clock: { ...systemClock, nowMs: () => nowMs } } as Parameters<typeof showProcessServer>[0]; // Only the clock is asked.

function applianceWith(system: Partial<SystemFigures> | undefined, telemetry: Partial<Telemetry> = {}): Appliance {
  return {
    ...{ applianceId: parseApplianceId("00000000-0000-0000-0000-000000000001"), vaultKey: "v", name: "site", version: "1" },
    ...{ certificateDigest: "d", nextCertificateDigest: undefined, protocolVersion: 3, registeredAt: toTimestamp(nowMs) },
    certificateEndsAt: toTimestamp(nowMs + 10.5 * 86_400_000),
    lastSeenAt: toTimestamp(nowMs),
    telemetry: {
      ...{ applianceVersion: "1", spoolBytes: 0, spoolBytesMax: 1000 * mebibyte, residentBytes: 1, healthErrors: [] },
      ...telemetry,
      ...(system === undefined ? {} : { system: { ...calm, ...system } }),
    },
  };
}

function shown(system: Partial<SystemFigures> | undefined, telemetry?: Partial<Telemetry>): Record<string, unknown> {
  return showProcessServer(services, applianceWith(system, telemetry), { health: "Normal" });
}

test("a process server is judged by the documented limits, and its health is the worst of its measures", () => {
  const levels = ["Healthy", "Warning", "Critical"];
  const cases: readonly (readonly [string, readonly (readonly [Partial<SystemFigures>, Partial<Telemetry>])[]])[] = [
    ["cpuLoadStatus", [0.8, 0.81, 0.96].map((cpuShare) => [{ cpuShare }, {}] as const)],
    ["systemLoadStatus", [0.8, 0.81, 3].map((loadShare) => [{ loadShare }, {}] as const)],
    ["memoryUsageStatus", [200, 190, 40].map((memoryAvailableBytes) => [{ memoryAvailableBytes }, {}] as const)],
    ["spaceUsageStatus", [700, 710, 760].map((used) => [{ uploadedBytesPerSecond: 1e12 }, { spoolBytes: used * mebibyte }] as const)],
    [
      "throughputStatus",
      [100, 100, 100].map(
        (used, at) =>
          [{ uploadedBytesPerSecond: (used * mebibyte) / ([600, 2000, 3000][at] ?? 1) }, { spoolBytes: used * mebibyte }] as const,
      ),
    ],
  ];
  for (const [key, of] of cases)
    for (const [at, [system, telemetry]] of of.entries()) {
      const server = shown(system, telemetry);
      assert.equal(server[key], levels[at], `${key} ${at}`);
      assert.equal(server["health"], ["Normal", "Warning", "Critical"][at], `health by ${key} ${at}`);
    }
});

test("a spool on a disk with less space than its limit shows what the disk has beyond its reserve", () => {
  const server = shown({ diskAvailableBytes: 228 * mebibyte });
  assert.deepEqual([server["totalSpaceInBytes"], server["availableSpaceInBytes"]], [100 * mebibyte, 100 * mebibyte]);
});

test("an appliance of an older version shows what it tells and nothing else; the certificate is the hub's to know", () => {
  const server = shown(undefined);
  for (const key of ["cpuLoad", "systemLoad", "totalMemoryInBytes", "throughputInBytes", "osVersion", "watari"])
    assert.ok(!(key in server), key);
  assert.deepEqual([server["spaceUsageStatus"], server["health"]], ["Healthy", "Normal"]);
  assert.equal(loadOf(services, applianceWith(undefined))["sslCertExpiryRemainingDays"], 10);
});

test("an appliance is silent by the limit of the health rule, everywhere", () => {
  const appliance = applianceWith(undefined);
  for (const [agoMs, expected] of [
    [healthLimits.applianceSilentMs, false],
    [healthLimits.applianceSilentMs + 1000, true],
  ] as const) {
    const silent = { ...appliance, lastSeenAt: toTimestamp(nowMs - agoMs) };
    assert.equal(isSilent(services, silent), expected);
    assert.equal(showProcessServer(services, silent, { health: "Normal" })["psServiceStatus"], expected ? "NotRunning" : "Running");
  }
});
