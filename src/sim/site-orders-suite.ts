// Promises of the orders that change a site, for every appliance that takes them: the real one and the simulated one.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { fromTimestamp, systemClock } from "../base/clock.ts";
import { byHandId, type ApplianceOrder, type ApplianceOrderResult, type Inventory } from "../contract/appliance-protocol.ts";
import { parseOrderId } from "../contract/ids.ts";

type Without<Order, Key extends PropertyKey> = Order extends unknown ? Omit<Order, Key> : never;
export type Draft = Without<ApplianceOrder, "orderId">;

export interface SiteUnderOrders {
  give(order: ApplianceOrder): Promise<ApplianceOrderResult>;
  /** As the hub was told last. */
  inventory(): Inventory;
  /** A vCenter that answers, and accounts of it: one that may log in, one that may not. */
  readonly vcenter: { readonly host: string; readonly port: number; readonly thumbprint: string };
  readonly accounts: { readonly right: string; readonly wrong: string; readonly guest: string };
  /** Where no vCenter answers. */
  readonly silent: { readonly host: string; readonly port: number };
  /** Of a machine that no vCenter shows, and where none answers. */
  readonly machine: { readonly address: string; readonly silentAddress: string };
}

export function describeSiteOrders(open: () => SiteUnderOrders): void {
  const give = async (draft: Draft): Promise<ApplianceOrderResult> => await open().give({ ...draft, orderId: parseOrderId(randomUUID()) });
  const put = (over: Partial<Extract<Draft, { kind: "putVcenter" }>> = {}): Draft => {
    const { vcenter, accounts } = open();
    const { host, port, thumbprint: sha256 } = vcenter;
    const usual = { kind: "putVcenter", vcenterId: "vc-1", name: "first", host, port, runAsAccountId: accounts.right } as const;
    return { ...usual, trust: { kind: "thumbprint", sha256 }, ...over };
  };
  const failsWith = async (draft: Draft, code: string): Promise<void> => {
    const before = open()
      .inventory()
      .vcenters.map(({ vcenterId }) => vcenterId);
    const result = await give(draft);
    assert.ok(result.outcome === "failed", `${draft.kind} fails`);
    assert.equal(result.fault.id, code);
    assert.ok(result.fault.action.length > 0 && result.fault.causes.length > 0, "with causes and what to do");
    const after = open()
      .inventory()
      .vcenters.map(({ vcenterId }) => vcenterId);
    assert.deepEqual(after, before, "and nothing is kept");
  };

  test("what refuses a vCenter is told by its code, and nothing is kept", async () => {
    const { accounts, silent } = open();
    await failsWith(put({ runAsAccountId: accounts.wrong }), "VcenterLoginRefused");
    await failsWith(put({ runAsAccountId: "nobody" }), "NotFound");
    await failsWith(put({ runAsAccountId: accounts.guest }), "InputInvalid");
    await failsWith(put(silent), "VcenterUnreachable");
    await failsWith(put({ trust: { kind: "thumbprint", sha256: "00".repeat(32) } }), "VcenterUntrusted");
  });

  test("a vCenter is in the inventory with its machines before its order is answered, and once however often it is put", async () => {
    const isOwn = ({ vcenterId }: { readonly vcenterId: string }): boolean => vcenterId === "vc-1";
    for (let turn = 1; turn <= 2; turn++) {
      assert.equal((await give(put())).outcome, "done");
      const { vcenters, machines } = open().inventory();
      const [shown] = vcenters.filter(isOwn);
      assert.deepEqual(
        [vcenters.filter(isOwn).length, shown?.name, shown?.status, shown?.lastDiscoveredAt !== undefined],
        [1, "first", "connected", true],
      );
      assert.ok(machines.some(isOwn), "its machines are shown");
    }
  });

  test("another vCenter of the same name or the same address is refused", async () => {
    await failsWith(put({ vcenterId: "vc-2", name: "second" }), "StateConflict");
    await failsWith(put({ vcenterId: "vc-2", ...open().silent }), "StateConflict");
  });

  test("a change without a word on trust keeps that of before", async () => {
    const { trust: _trust, ...silentOnTrust } = put({ name: "renamed" }) as Extract<Draft, { kind: "putVcenter" }>;
    assert.equal((await give(silentOnTrust)).outcome, "done");
    assert.equal(
      open()
        .inventory()
        .vcenters.find(({ vcenterId }) => vcenterId === "vc-1")?.name,
      "renamed",
    );
  });

  test("a removed vCenter takes its machines along; removing it again is no fault", async () => {
    for (let turn = 1; turn <= 2; turn++) {
      assert.equal((await give({ kind: "removeVcenter", vcenterId: "vc-1" })).outcome, "done");
      const { vcenters, machines } = open().inventory();
      assert.equal([...vcenters, ...machines].filter(({ vcenterId }) => vcenterId === "vc-1").length, 0);
    }
  });

  test("a renewed certificate ends later than now, and orders go on", async () => {
    for (let turn = 1; turn <= 2; turn++) {
      const result = await give({ kind: "renewCertificate" });
      assert.ok(result.outcome === "done");
      assert.ok(fromTimestamp(result.certificateEndsAt ?? "") > systemClock.nowMs());
    }
    assert.equal((await give({ kind: "removeVcenter", vcenterId: "none" })).outcome, "done");
  });

  test("a machine that no vCenter shows is taken in by its address, once", async () => {
    const { address, silentAddress } = open().machine;
    const first = await give({ kind: "addMachine", name: "metal", address });
    const second = await give({ kind: "addMachine", name: "metal", address });
    assert.ok(first.outcome === "done" && second.outcome === "done");
    assert.equal(first.infrastructureId, second.infrastructureId);
    const shown = open()
      .inventory()
      .machines.filter(({ addresses }) => addresses.includes(address));
    assert.deepEqual(
      shown.map(({ infrastructureId, vcenterId, name }) => [infrastructureId, vcenterId, name]),
      [[first.infrastructureId, byHandId, "metal"]],
    );
    await failsWith({ kind: "addMachine", name: "ghost", address: silentAddress }, "GuestUnreachable");
  });
}
