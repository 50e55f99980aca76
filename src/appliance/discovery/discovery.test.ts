// Promises of discovery, against VMware's own simulator: typed machines, refusals by name, power read back.

import assert from "node:assert/strict";
import { before, after, describe, test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { createConnector } from "../../connectivity/connector.ts";
import { parseTopology } from "../../connectivity/topology.ts";
import {
  simulatorMissing,
  simulatorPassword,
  simulatorUser,
  startVcenterSimulator,
  type VcenterSimulator,
} from "../testing/vcenter-simulator.ts";
import { readInventory } from "./inventory.ts";
import { readPower, setPower } from "./power.ts";
import { openVcenterSession, type VcenterSession, type VcenterTrust } from "./vcenter-session.ts";

const missing = await simulatorMissing();
const connector = createConnector({ topology: parseTopology({ siteRanges: ["127.0.0.0/8"] }), clock: systemClock, log: silentLog });
const login = { userName: simulatorUser, password: simulatorPassword };
const isFault = (code: string) => (error: unknown) =>
  error instanceof Fault && error.code === code && !error.message.includes(simulatorPassword);

describe("vCenter discovery", { skip: missing ?? false }, () => {
  let simulator: VcenterSimulator;
  before(async () => {
    simulator = await startVcenterSimulator({ machineCount: 5 });
  });
  after(async () => {
    await simulator[Symbol.asyncDispose]();
    await connector[Symbol.asyncDispose]();
  });
  const open = async (
    over: { readonly trust?: VcenterTrust; readonly password?: string; readonly port?: number } = {},
  ): Promise<VcenterSession> =>
    await openVcenterSession({
      address: {
        host: "127.0.0.1",
        port: over.port ?? simulator.port,
        trust: over.trust ?? { kind: "thumbprint", sha256: simulator.thumbprint.toUpperCase().replaceAll(/(..)(?!$)/g, "$1:") },
      },
      login: { ...login, password: over.password ?? login.password },
      connector,
    });

  test("every machine is read with disks, cards and power state", async () => {
    await using session = await open();
    const entries = await readInventory(session, "vc-1");
    assert.equal(entries.length, 10);
    for (const { machine } of entries) {
      assert.match(machine.infrastructureId, /^[0-9a-f-]{36}$/);
      assert.match(machine.smbiosUuid, /^[0-9a-f-]{36}$/);
      assert.ok(machine.name.length > 0);
      assert.ok(machine.cpuCount >= 1 && machine.memoryBytes >= 2 ** 20);
      assert.ok((machine.disks[0]?.sizeBytes ?? 0) > 0);
      assert.ok((machine.disks[0]?.controller ?? "").endsWith("Controller"));
      assert.match(machine.nics[0]?.mac ?? "", /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
      assert.equal(machine.powerState, "poweredOn");
    }
  });

  test("power off and on are read back; a machine already there is left alone", async () => {
    await using session = await open();
    const entry = (await readInventory(session, "vc-1"))[0];
    assert.ok(entry);
    for (const wanted of ["poweredOff", "poweredOff", "poweredOn"] as const) {
      await setPower(session, { machine: entry.object, wanted, clock: systemClock });
      assert.equal(await readPower(session, entry.object), wanted);
    }
  });

  test("a wrong password is VcenterLoginRefused and never shown", async () => {
    await assert.rejects(open({ password: `${simulatorPassword}x` }), isFault("VcenterLoginRefused"));
  });

  test("a certificate that nobody vouches for, or another than the pinned one, is refused before the login", async () => {
    await assert.rejects(open({ trust: { kind: "system" } }), isFault("VcenterUntrusted"));
    await assert.rejects(open({ trust: { kind: "thumbprint", sha256: "00".repeat(32) } }), (error) => {
      assert.ok(error instanceof Fault);
      assert.equal(error.evidence["thumbprint"], simulator.thumbprint);
      return error.code === "VcenterUntrusted";
    });
  });

  test("a closed port is VcenterUnreachable", async () => {
    await assert.rejects(open({ port: 1 }), isFault("VcenterUnreachable"));
  });

  test("a session that the vCenter has ended is opened again", async () => {
    await using session = await open();
    await session.call({ method: "Logout", on: session.service.sessionManager, body: "" });
    assert.equal((await readInventory(session, "vc-1")).length, 10);
  });
});
