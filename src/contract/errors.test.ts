// Promises of faults: every kind is complete, and a fault survives the way to another process.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { asFault, Fault, fromReport, toReport } from "./errors.ts";
import { faultKinds } from "./fault-kinds.ts";
import { faultReportShape } from "./shapes.ts";

describe("faults", () => {
  test("every kind has causes, an action, an HTTP status and an exit code", () => {
    for (const [code, kind] of Object.entries(faultKinds)) {
      assert.ok(kind.causes.length > 0, code);
      assert.ok(kind.action.length > 10, code);
      assert.ok(kind.httpStatus >= 400 && kind.httpStatus < 600, code);
      assert.ok(kind.exitCode >= 2 && kind.exitCode <= 6, code);
    }
  });

  test("a fault read back from its report says the same", () => {
    const fault = new Fault("SpoolFull", "could not take in a block", { evidence: { freeBytes: 12, folders: ["a", "b"] } });
    const copy = fromReport(faultReportShape.parse(JSON.parse(JSON.stringify(toReport(fault)))));
    assert.deepEqual(toReport(copy), toReport(fault));
  });

  test("an unknown id of a newer peer becomes Internal and keeps the id as evidence", () => {
    const report = { ...toReport(new Fault("NotFound", "x")), id: "FromTheFuture" };
    const fault = fromReport(faultReportShape.parse(report));
    assert.equal(fault.code, "Internal");
    assert.equal(fault.evidence["peerFaultId"], "FromTheFuture");
  });

  test("the private cause stays out of the report", () => {
    const fault = asFault(new Error("disk on fire"), "seal a point");
    assert.equal(fault.message, "could not seal a point: disk on fire");
    assert.equal(JSON.stringify(toReport(new Fault("Internal", "x", { cause: new Error("hidden") }))).includes("hidden"), false);
  });
});
