// How the login is chosen, and which keys need a passphrase.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { generateKeyPairSync } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { Fault } from "../../contract/errors.ts";
import { chooseLogin, isKeyEncrypted } from "./login.ts";

const nothing = { flags: {}, isKept: false, isTerminal: false, usualKey: undefined };

describe("chooseLogin", () => {
  it("prefers what is given now, then what is kept, then a person, then the usual key", () => {
    const all = { flags: { key: "/k" }, isKept: true, isTerminal: true, usualKey: "/u" };
    assert.deepEqual(chooseLogin(all), { kind: "key", file: "/k" });
    assert.deepEqual(chooseLogin({ ...all, flags: { passwordFile: "/p" } }), { kind: "passwordFile", file: "/p" });
    assert.deepEqual(chooseLogin({ ...all, flags: {} }), { kind: "kept" });
    assert.deepEqual(chooseLogin({ ...all, flags: {}, isKept: false }), { kind: "ask" });
    assert.deepEqual(chooseLogin({ ...nothing, usualKey: "/u" }), { kind: "key", file: "/u" });
  });

  it("names both flags where nobody can be asked, and refuses both at once", () => {
    const isInvalid = (error: unknown): boolean =>
      error instanceof Fault && error.code === "InputInvalid" && `${error.message} ${error.action}`.includes("--key");
    assert.throws(() => chooseLogin(nothing), isInvalid);
    assert.throws(() => chooseLogin({ ...nothing, flags: { key: "/k", passwordFile: "/p" } }), isInvalid);
  });
});

describe("isKeyEncrypted", () => {
  it("tells PEM keys with and without a passphrase apart", () => {
    const { privateKey } = generateKeyPairSync("ed25519");
    assert.equal(isKeyEncrypted(privateKey.export({ type: "pkcs8", format: "pem" })), false);
    const cipher = { cipher: "aes-256-cbc", passphrase: "x" };
    assert.equal(isKeyEncrypted(privateKey.export({ type: "pkcs8", format: "pem", ...cipher })), true);
  });

  const hasKeygen = spawnSync("ssh-keygen", ["-?"]).error === undefined;
  it("tells OpenSSH keys with and without a passphrase apart", { skip: hasKeygen ? false : "needs ssh-keygen" }, () => {
    const folder = mkdtempSync(join(tmpdir(), "watari-login-"));
    try {
      for (const [name, passphrase] of [
        ["plain", ""],
        ["closed", "a passphrase"],
      ] as const) {
        const made = spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", passphrase, "-f", join(folder, name)]);
        assert.equal(made.status, 0);
        assert.equal(isKeyEncrypted(readFileSync(join(folder, name), "utf8")), passphrase !== "");
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("says no of what is no key at all", () => {
    assert.equal(isKeyEncrypted(""), false);
    assert.equal(isKeyEncrypted("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"), false);
  });
});
