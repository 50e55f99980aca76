// Flags to a wish: each value checked, the wrong flag named.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../../contract/errors.ts";
import { parseWish, type MoveFlags } from "./wish.ts";

const usual: MoveFlags = { to: "start", hydrate: true, network: "user", probePath: "/", state: "/x" };

describe("parseWish", () => {
  it("takes the shortest call as: run it here, in a translated network, after asking", () => {
    assert.deepEqual(parseWish("root@web1", usual), {
      source: { user: "root", host: "web1", port: 22 },
      privilege: "root",
      outcome: { kind: "start" },
      network: { kind: "user" },
      forwards: [],
      probe: undefined,
      applianceAddress: undefined,
      until: "end",
      isConfirmed: false,
    });
  });

  it("becomes root with sudo for anyone but root", () => {
    assert.equal(parseWish("admin@web1", usual).privilege, "sudo");
    assert.equal(parseWish("root@web1", { ...usual, sudo: true }).privilege, "sudo");
  });

  it("reads files, bridge, forwards and probe", () => {
    const files = parseWish("root@web1", { ...usual, to: "qcow2", out: "/out", hydrate: false, until: "test" });
    assert.deepEqual(files.outcome, { kind: "files", format: "qcow2", folder: "/out", isHydrated: false });
    assert.equal(files.until, "test");
    assert.deepEqual(parseWish("root@web1", { ...usual, network: "bridge=br0" }).network, { kind: "bridge", bridge: "br0" });
    const wish = parseWish("root@web1", { ...usual, forward: ["2222:22", "8080:80"], probePort: "80", probePath: "/up" });
    assert.deepEqual(wish.forwards, [
      { hostPort: 2222, guestPort: 22 },
      { hostPort: 8080, guestPort: 80 },
    ]);
    assert.deepEqual(wish.probe, { port: 80, path: "/up" });
  });

  it("names the flag that is wrong", () => {
    const wrong: readonly (readonly [string, Partial<MoveFlags>])[] = [
      ["--to", { to: "vdi" }],
      ["--out", { out: "/out" }],
      ["--network", { network: "bridge=" }],
      ["--network", { network: "nat" }],
      ["--forward", { forward: ["2222"] }],
      ["--forward", { forward: ["2222:22:1"] }],
      ["--forward", { forward: ["0:22"] }],
      ["--forward", { forward: ["22:22", "22:23"] }],
      ["--forward", { forward: ["2222:22"], network: "bridge=br0" }],
      ["--probe-port", { probePort: "http" }],
      ["--probe-path", { probePort: "80", probePath: "up" }],
      ["--until", { until: "now" }],
    ];
    for (const [flag, flags] of wrong)
      assert.throws(
        () => parseWish("root@web1", { ...usual, ...flags }),
        (error: unknown) => error instanceof Fault && error.code === "InputInvalid" && error.evidence["flag"] === flag,
        JSON.stringify(flags),
      );
  });
});
