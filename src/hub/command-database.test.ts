// What commands beside the hub are told when there is no database for them, or not for them.

import assert from "node:assert/strict";
import { chown, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "../base/log.ts";
import { Fault } from "../contract/errors.ts";
import { runningDatabase, withDatabase } from "./command-database.ts";
import { parseHubConfig } from "./hub-config.ts";

const hasCode = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

test("a command beside the hub makes no database, and names the user that it has to be", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-command-"));
  try {
    const config = parseHubConfig({ domain: "watari.test", stateDir, publicAddresses: ["127.0.0.1"] });
    const refuse = async (code: string): Promise<void> =>
      await assert.rejects(
        withDatabase(config, silentLog, async () => assert.fail("there is none")),
        hasCode(code),
      );
    await assert.rejects(runningDatabase(config), hasCode("DatabaseUnavailable"));
    await refuse("NotFound");
    assert.deepEqual(await readdir(stateDir), []);
    if (process.getuid?.() !== 0) return;
    const nobody = 65_534;
    await chown(stateDir, nobody, nobody);
    await refuse("InputInvalid");
    await assert.rejects(runningDatabase(config), hasCode("InputInvalid"));
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
});
