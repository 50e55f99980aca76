// Sources as people write them: every form read, everything else refused.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Fault } from "../../contract/errors.ts";
import { folderNameOf, parseSource, sourceText } from "./source.ts";

describe("parseSource", () => {
  it("reads user, host and port, with root and 22 when they are not told", () => {
    assert.deepEqual(parseSource("root@web1"), { user: "root", host: "web1", port: 22 });
    assert.deepEqual(parseSource("web1.example.org:2222"), { user: "root", host: "web1.example.org", port: 2222 });
    assert.deepEqual(parseSource("admin@[fd00::1]:22"), { user: "admin", host: "fd00::1", port: 22 });
    assert.deepEqual(parseSource("admin@192.0.2.7"), { user: "admin", host: "192.0.2.7", port: 22 });
  });

  it("refuses what is no machine, naming the form", () => {
    for (const text of [
      "",
      "root@",
      "@web1",
      "root@web1:0",
      "root@web1:70000",
      "root@-oProxy",
      "a b@c",
      "root@[web1]",
      "root@fd00::1",
      "root@h:22:23",
    ])
      assert.throws(
        () => parseSource(text),
        (error: unknown) => error instanceof Fault && error.code === "InputInvalid" && error.action.includes("root@HOST"),
        text,
      );
  });

  it("reads what sourceText writes", () => {
    const host = fc.oneof(fc.domain(), fc.ipV4(), fc.constant("fd00::7"));
    const user = fc.stringMatching(/^[a-z][a-z0-9_-]{0,20}$/);
    fc.assert(
      fc.property(user, host, fc.integer({ min: 1, max: 65_535 }), (name, where, port) => {
        const source = { user: name, host: where.toLowerCase(), port };
        assert.deepEqual(parseSource(sourceText(source)), source);
      }),
    );
  });
});

describe("folderNameOf", () => {
  it("is short, safe as a folder, and another for each machine and port", () => {
    const seen = new Map<string, string>();
    fc.assert(
      fc.property(fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()), fc.integer({ min: 1, max: 65_535 }), (host, port) => {
        const name = folderNameOf({ user: "root", host, port });
        assert.match(name, /^[a-z0-9._-]{1,31}$/);
        const machine = `${host} ${port}`;
        assert.equal(seen.get(name) ?? machine, machine);
        seen.set(name, machine);
      }),
    );
  });

  it("does not depend on who logs in", () => {
    assert.equal(folderNameOf(parseSource("root@web1")), folderNameOf(parseSource("admin@WEB1:22")));
  });
});
