// A reverse delta makes the source's disks the landed machine's, or writes nothing: whoever wrote to them, wherever it was killed, whatever the file says.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { tryCommand } from "../../base/run-command.ts";
import { siblingProgram } from "../../base/sibling-program.ts";
import { Fault } from "../../contract/errors.ts";
import type { RecoveryPoint } from "../../vault/vault.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { MemoryStore } from "../../store/memory-store.ts";
import { diskId, newMachine, newPoint, openTestVault, sealFacts, sendAll } from "../../vault/test-vault.ts";
import { openAuthority } from "../pki/authority.ts";
import { createDocumentSigner, type DocumentSigner } from "../pki/document-signer.ts";
import { applyDelta, type AppliedDelta, type ApplyOptions } from "./apply-delta.ts";
import { writeDelta } from "./write-delta.ts";

// A page and a half of blocks, and a short last one; what is excluded lies across blocks and is no whole number of sectors.
const sizeBytes = 200 * blockBytes + 4096;
const excluded = [{ offset: 10 * blockBytes + 1000, length: 3 * blockBytes }];
const changedBlocks = [0, 9, 10, 12, 13, 40, 41, 42, 130, 199, 200];
/** In 12 and 13 only excluded bytes change. */
const entryCount = changedBlocks.length - 2;
const zeroedBlock = 42;
const signal = new AbortController().signal;

let folder: string;
let signer: DocumentSigner;
let caPem: string;
let source: Buffer;
let landed: Buffer;

const mask = (content: Buffer): Buffer => {
  const masked = Buffer.from(content);
  for (const { offset, length } of excluded) masked.fill(0, offset, offset + length);
  return masked;
};

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watari-delta-"));
  const authority = await openAuthority({ folder: join(folder, "pki"), clock: systemClock, random: systemRandom });
  signer = createDocumentSigner({ authority, clock: systemClock });
  caPem = authority.caPem;
  await writeFile(join(folder, "ca.pem"), caPem);
  source = randomBytes(sizeBytes);
  source.fill(0, 60 * blockBytes, 120 * blockBytes);
  landed = Buffer.from(source);
  for (const block of changedBlocks) landed.set(randomBytes(Math.min(700, sizeBytes - block * blockBytes)), block * blockBytes + 1);
  landed.fill(0, zeroedBlock * blockBytes, (zeroedBlock + 1) * blockBytes);
  await makeDelta();
});
after(async () => await rm(folder, { recursive: true, force: true }));

const at = (name: string): string => join(folder, name);

async function makeDelta(): Promise<void> {
  await using store = new MemoryStore();
  await using vault = await openTestVault(store);
  const machineId = newMachine();
  const seal = async (content: Buffer, parentPointId?: RecoveryPoint["pointId"]): Promise<RecoveryPoint> => {
    const parent = parentPointId === undefined ? {} : { parentPointId };
    const disks = [{ diskId, sizeBytes, isBoot: true, excluded }];
    await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, ...parent, disks });
    await sendAll(writer, mask(content));
    return (await writer.seal(sealFacts)).point;
  };
  const basis = await seal(source);
  const point = await seal(landed, basis.pointId);
  const names = { vaultId: "v", itemId: "i", machineName: "web", path: at("delta") };
  const tools = {
    reader: vault,
    sign: async (type: string, document: object) => await signer.sign(type, document),
    onProgress: () => undefined,
  };
  const { manifest } = await writeDelta({ basis, point, ...names }, { ...tools, signal });
  assert.equal(manifest.entryCount, entryCount);
}

async function apply(disk: string, more: Partial<ApplyOptions> = {}): Promise<AppliedDelta> {
  const diskPaths = new Map([[diskId as string, at(disk)]]);
  return await applyDelta({ deltaPath: at("delta"), caPem, diskPaths, undoPath: at(`${disk}.undo`), signal, ...more });
}

/** As the landed machine's, with the source's own bytes where nothing was replicated. */
async function assertIsBack(disk: string): Promise<void> {
  const expected = Buffer.from(landed);
  for (const { offset, length } of excluded) expected.set(source.subarray(offset, offset + length), offset);
  assert.equal(Buffer.compare(await readFile(at(disk)), expected), 0);
  assert.equal(existsSync(at(`${disk}.undo`)), false);
}

describe("a reverse delta", () => {
  it("makes the source's disk the landed machine's, leaves excluded bytes alone, and may be applied again", async () => {
    await writeFile(at("plain"), source);
    const dry = await apply("plain", { isDryRun: true });
    assert.equal(Buffer.compare(await readFile(at("plain")), source), 0, "a dry run writes nothing");
    assert.equal(dry.disks[0]?.entryCount, entryCount);
    const first = await apply("plain");
    await assertIsBack("plain");
    const again = await apply("plain");
    await assertIsBack("plain");
    assert.deepEqual(
      [first, again].map(({ disks }) => disks.map(({ writtenBlocks }) => writtenBlocks)),
      [[entryCount], [0]],
    );
  });

  it("is not written to disks that anybody wrote to since, inside of it or outside, or that are others", async () => {
    for (const offset of [40 * blockBytes + 50_000, 150 * blockBytes, sizeBytes - 1]) {
      const foreign = Buffer.from(source);
      foreign[offset] = (foreign[offset] ?? 0) ^ 1;
      await writeFile(at("foreign"), foreign);
      await assert.rejects(apply("foreign"), (error) => error instanceof Fault && error.code === "SourceWritten");
      assert.equal(Buffer.compare(await readFile(at("foreign")), foreign), 0, "not one byte was written");
    }
    await writeFile(at("short"), source.subarray(0, sizeBytes - 4096));
    await assert.rejects(apply("short"), { code: "SourceWritten" });
    await assert.rejects(apply("foreign", { diskPaths: new Map() }), { code: "InputInvalid" });
  });

  it("goes on after a kill at every write, torn anywhere, and still tells what others wrote meanwhile", async () => {
    const child = siblingProgram(import.meta, "apply-child");
    const killed = async (disk: string, write: number, keptBytes: number): Promise<void> => {
      const args = [child, at("delta"), at("ca.pem"), `${diskId}=${at(disk)}`, at(`${disk}.undo`), String(write), String(keptBytes)];
      const { stderr } = await tryCommand(process.execPath, ["--disable-warning=ExperimentalWarning", ...args]);
      assert.match(stderr, /killed by SIGKILL/);
    };
    for (const [write, keptBytes] of [
      [1, 0],
      [3, 512],
      [5, 30_000 - (30_000 % 512)],
      [entryCount, blockBytes],
    ] as const) {
      await writeFile(at("killed"), source);
      await killed("killed", write, keptBytes);
      await killed("killed", 2, 1024); // And again, while it goes on.
      await apply("killed");
      await assertIsBack("killed");
    }
    await writeFile(at("meddled"), source);
    await killed("meddled", 3, 512);
    const torn = await readFile(at("meddled"));
    torn[40 * blockBytes + 20_000] = (torn[40 * blockBytes + 20_000] ?? 0) ^ 1;
    await writeFile(at("meddled"), torn);
    await assert.rejects(apply("meddled"), { code: "SourceWritten" });
    assert.equal(Buffer.compare(await readFile(at("meddled")), torn), 0);
  });

  it("is refused after any change of its file, and from another authority", async () => {
    const delta = await readFile(at("delta"));
    await writeFile(at("plain"), source);
    const seed = randomBytes(4).readUInt32BE();
    for (let round = 0; round < 60; round++) {
      // The head and the manifest more often than the bodies.
      const place = round % 2 === 0 ? (seed + round * 7919) % 4000 : (seed + round * 104_729) % delta.length;
      const changed = Buffer.from(delta);
      changed[place] = (changed[place] ?? 0) ^ (1 << (round % 8));
      await writeFile(at("changed"), changed);
      await assert.rejects(apply("plain", { deltaPath: at("changed") }), Fault, `byte ${place}, seed ${seed}`);
    }
    for (const length of [0, 15, 16, 500, delta.length - 1]) {
      await writeFile(at("changed"), delta);
      await truncate(at("changed"), length);
      await assert.rejects(apply("plain", { deltaPath: at("changed") }), Fault);
    }
    await writeFile(at("changed"), Buffer.concat([delta, Buffer.alloc(1)]));
    await assert.rejects(apply("plain", { deltaPath: at("changed") }), { code: "SignatureInvalid" });
    const other = await openAuthority({ folder: at("other"), clock: systemClock, random: systemRandom });
    await assert.rejects(apply("plain", { caPem: other.caPem }), { code: "SignatureInvalid" });
  });
});
