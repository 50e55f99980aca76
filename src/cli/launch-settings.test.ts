// Options of how a machine's clone is made ready: what they become, and that keys come from files alone.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, it } from "node:test";
import { Command } from "commander";
import { Fault } from "../contract/errors.ts";
import { launchSettingsOf, withLaunchSettings, type LaunchSettingsOptions } from "./launch-settings.ts";

let folder = "";
before(async () => void (folder = await mkdtemp(join(tmpdir(), "wl-"))));
after(async () => await rm(folder, { recursive: true }));

async function read(...args: readonly string[]): Promise<object> {
  const command = withLaunchSettings(new Command("x").exitOverride()).parse(args, { from: "user" });
  return await launchSettingsOf(command.opts<LaunchSettingsOptions>());
}

const base64 = (text: string): string => Buffer.from(text, "latin1").toString("base64");

it("launch options become members of the call, and none of them is there unasked", async () => {
  assert.deepEqual(await read(), {});
  assert.deepEqual(await read("--no-serial-console"), { hasSerialConsole: false });
  assert.deepEqual(
    await read(
      "--serial-console",
      "--nic-address",
      "ens192=dhcp",
      "--nic-address",
      "ens224=10.0.0.5/24,gateway=10.0.0.1,dns=10.0.0.2,dns=10.0.0.3",
    ),
    {
      hasSerialConsole: true,
      nicAddressing: [
        { nicId: "ens192", addressing: { kind: "dhcp" } },
        {
          nicId: "ens224",
          addressing: { kind: "fixed", address: "10.0.0.5/24", gateway: "10.0.0.1", nameServers: ["10.0.0.2", "10.0.0.3"] },
        },
      ],
    },
  );
});

it("a key file is taken byte for byte, a passphrase without its line's end", async () => {
  const keyFile = join(folder, "key");
  const passphraseFile = join(folder, "passphrase");
  await writeFile(keyFile, Buffer.from("\x00raw\n", "latin1"));
  await writeFile(passphraseFile, "pass phrase \r\n");
  const { unlockKeys } = { unlockKeys: [], ...(await read("--unlock-key-file", keyFile, "--unlock-passphrase-file", passphraseFile)) };
  assert.deepEqual(unlockKeys, [base64("\x00raw\n"), base64("pass phrase ")]);
});

it("keys and addresses that cannot be are refused without showing a key", async () => {
  const path = join(folder, "bad");
  for (const [content, option] of [
    ["", "--unlock-key-file"],
    ["x".repeat(8193), "--unlock-key-file"],
    ["secret\nother", "--unlock-passphrase-file"],
  ] as const) {
    await writeFile(path, content);
    await assert.rejects(read(option, path), (error) => {
      assert.ok(error instanceof Fault);
      assert.doesNotMatch(JSON.stringify([error.message, error.evidence, error.action]), /secret|xxx/);
      return error.code === "InputInvalid";
    });
  }
  for (const bad of [
    "eth0",
    "=dhcp",
    "eth0=static",
    "eth0=10.0.0.5",
    "eth0=10.0.0.5/24,router=10.0.0.1",
    "eth0=10.0.0.5/24,gateway=1.1.1.1,gateway=1.1.1.2",
  ])
    await assert.rejects(read("--nic-address", bad), (error) => error instanceof Fault && error.code === "InputInvalid", bad);
  await assert.rejects(read("--unlock-key-file", "-", "--unlock-passphrase-file", "-"), /stdin holds one/);
});
