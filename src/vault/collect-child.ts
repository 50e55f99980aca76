// A writer that is killed, for a test: seals points, removes them and collects, and says what it is about to do and what is done.

import { randomBytes } from "node:crypto";
import { writeSync } from "node:fs";
import { parseMachineId, type PointId } from "../contract/ids.ts";
import { blockBytes } from "../disk/geometry.ts";
import { openDirectoryStore } from "../store/directory-store.ts";
import { contentOfSeed } from "./kill-content.ts";
import { diskId, newPoint, openTestVault, sealFacts, sendAll } from "./test-vault.ts";

const [folder = "", machineText = "", keyHex = "", vaultText = "", indexFolder = ""] = process.argv.slice(2);
const say = (line: string): void => void writeSync(1, `${line}\n`);

const machineId = parseMachineId(machineText);
await using store = await openDirectoryStore(folder);
await using vault = await openTestVault(store, {
  ...(indexFolder === "" ? {} : { indexFolder, indexTableMax: 6 }),
  ...{ packBytes: 100_000, key: Buffer.from(keyHex, "hex"), vaultId: vaultText as never },
});
const points: PointId[] = [];
for await (const { pointId } of vault.listPoints()) points.push(pointId);
for (;;) {
  const seed = randomBytes(2).readUInt16BE();
  const content = contentOfSeed(seed);
  const pointId = newPoint();
  say(`sealing ${pointId} ${seed}`);
  {
    const disks = [{ diskId, sizeBytes: 6 * blockBytes, isBoot: true, excluded: [] }];
    await using writer = await vault.beginPoint({ pointId, machineId, disks });
    await sendAll(writer, content);
    await writer.seal(sealFacts);
  }
  say(`sealed ${pointId} ${seed}`);
  points.push(pointId);
  const collecting = vault.collect({ orphanGraceMs: 0, liveShareMin: 1 });
  while (points.length > 3) {
    const oldest = points.shift();
    if (oldest === undefined) break;
    say(`removing ${oldest}`);
    await vault.removePoint(machineId, oldest);
  }
  await collecting;
}
