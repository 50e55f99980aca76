// Promises of the appliance's state: secrets sealed and bound to their purpose, facts that last, a spool with a limit.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parseOrderId } from "../../contract/ids.ts";
import { createCredentialStore } from "../credentials/credential-store.ts";
import { createHubOrders } from "../hub/hub-orders.ts";
import { checkSpool, lookAtSpool } from "../ingest/spool.ts";
import { openStateDatabase } from "./database.ts";
import { createSealedFacts } from "./facts.ts";
import { openSecretBox } from "./secret-box.ts";

const isFault = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

async function withFolder(task: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "watari-state-"));
  try {
    await task(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

describe("orders of the hub", () => {
  test("with an older fencing number than one seen of the same machine are refused, also after a restart", async () => {
    await withFolder(async (folder) => {
      const machineId = parseMachineId(systemRandom.uuid());
      const order = (fencingNumber?: number) => {
        const numbered = fencingNumber === undefined ? {} : { fencingNumber };
        return { kind: "fence", orderId: parseOrderId(systemRandom.uuid()), machineId, ...numbered } as const;
      };
      const first = order(7);
      {
        using database = openStateDatabase(join(folder, "state"));
        assert.equal(createHubOrders(database).accept(first), "new");
      }
      using database = openStateDatabase(join(folder, "state"));
      const orders = createHubOrders(database);
      const stale = order(6);
      assert.deepEqual([orders.accept(first), orders.accept(stale), orders.accept(stale)], ["known", "stale", "known"]);
      assert.deepEqual([orders.accept(order(7)), orders.accept(order()), orders.accept(order(8))], ["new", "new", "new"]);
      const [told] = orders.untold(9);
      assert.equal(told?.outcome === "failed" ? `${told.orderId} ${told.fault.id}` : "", `${stale.orderId} StaleOrder`);
      assert.ok(orders.open().every((each) => each.orderId !== stale.orderId));
      const other = { ...order(1), machineId: parseMachineId(systemRandom.uuid()) };
      assert.equal(orders.accept(other), "new", "numbers are compared for each machine by itself");
    });
  });
});

describe("secrets at rest", () => {
  test("open only under their purpose and with their key; any flipped byte is refused", async () => {
    await withFolder(async (folder) => {
      const box = await openSecretBox(join(folder, "key"), systemRandom);
      const sealed = box.seal("credential 1", "hunter2");
      assert.equal((await openSecretBox(join(folder, "key"), systemRandom)).open("credential 1", sealed), "hunter2");
      assert.throws(() => box.open("credential 2", sealed), isFault("DataDamaged"));
      for (let index = 0; index < sealed.length; index++) {
        const flipped = Uint8Array.from(sealed);
        flipped[index] = (flipped[index] ?? 0) ^ 1;
        assert.throws(() => box.open("credential 1", flipped), isFault("DataDamaged"), `byte ${index}`);
      }
      const other = await openSecretBox(join(folder, "other"), systemRandom);
      assert.throws(() => other.open("credential 1", sealed), isFault("DataDamaged"));
      assert.equal((await stat(join(folder, "key"))).mode & 0o777, 0o600);
    });
  });

  test("no credential and no fact is in the database file in clear", async () => {
    await withFolder(async (folder) => {
      const path = join(folder, "state.sqlite");
      const box = await openSecretBox(join(folder, "key"), systemRandom);
      {
        using database = openStateDatabase(path);
        createSealedFacts(database, box).write("sitePassphrase", "open-sesame");
        const credentials = createCredentialStore({ database, box, random: systemRandom });
        const first = credentials.put(
          { name: "a", kind: "vcenter", userName: "u", privilege: "root" },
          { kind: "password", password: "hunter2" },
        );
        const second = credentials.put(
          { name: "a", kind: "vcenter", userName: "v", privilege: "root" },
          { kind: "password", password: "hunter3" },
        );
        assert.equal(second.credentialId, first.credentialId);
        assert.deepEqual(credentials.reveal("a"), { kind: "password", password: "hunter3" });
      }
      const bytes = (await readFile(path)).toString("latin1");
      for (const secret of ["open-sesame", "hunter2", "hunter3"]) assert.ok(!bytes.includes(secret));
      using database = openStateDatabase(path);
      assert.equal(createSealedFacts(database, box).read("sitePassphrase"), "open-sesame");
    });
  });
});

test("a full spool refuses a new point and takes it again once there is room", async () => {
  await withFolder(async (folder) => {
    const spool = { folder: join(folder, "packs"), spoolBytesMax: 1000 };
    checkSpool(spool, await lookAtSpool(spool));
    await writeFile(join(spool.folder, "pack"), Buffer.alloc(1000));
    const full = await lookAtSpool(spool);
    assert.throws(() => checkSpool(spool, full), isFault("SpoolFull"));
    await rm(join(spool.folder, "pack"));
    checkSpool(spool, await lookAtSpool(spool));
  });
});
