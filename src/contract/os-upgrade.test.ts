// What guests say of their upgrades, read; and which upgrades there are.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { findUpgradeReport, upgradesOf } from "./os-upgrade.ts";

describe("what a guest says of its upgrade", () => {
  it("is the newest whole line, whatever stands around it", () => {
    const serial =
      "[ 1.2] kernel\r\n\nWATARI-OS-UPGRADE running 5 Unpacking libc6\r\n[ 2.3] x\n\nWATARI-OS-UPGRADE done 100 trixie 13.1, kernel 6.12\r\nlogin: ";
    assert.deepEqual(findUpgradeReport(serial), { state: "done", percent: 100, text: "trixie 13.1, kernel 6.12" });
    assert.equal(findUpgradeReport("WATARI-OS-UPGRADE done 100 trix"), undefined, "a line that has not ended");
    assert.equal(findUpgradeReport("login: "), undefined);
  });

  it("is never more than a hundred percent, and reading it never throws", () => {
    fc.assert(
      fc.property(fc.string(), fc.nat(2000), (noise, percent) => {
        const found = findUpgradeReport(`${noise}\nWATARI-OS-UPGRADE running ${percent} x\n`);
        assert.ok(found === undefined || found.percent <= 100);
      }),
    );
  });
});

describe("upgrades", () => {
  it("go from one release to the next alone", () => {
    assert.deepEqual(upgradesOf("Debian GNU/Linux 12 (bookworm)"), ["debian13"]);
    assert.deepEqual(upgradesOf("Debian GNU/Linux 11 (bullseye)"), ["debian12"]);
    for (const other of ["Debian GNU/Linux 13 (trixie)", "Ubuntu 24.04", "Debian GNU/Linux 120", ""])
      assert.deepEqual(upgradesOf(other), []);
  });
});
