// The way back begins with points of the landed machine: equal to its disks, on the source's chain, and never of a machine that runs on.

import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { equalityReportShape, equalityReportType } from "../../contract/equality-report.ts";
import { parseDiskId, parsePointId } from "../../contract/ids.ts";
import { checkDocument } from "../pki/document-signer.ts";
import { readSteps } from "../jobs/job-store.ts";
import { applyDelta } from "../reverse/apply-delta.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { simUndoneByte } from "./sim/durable-sim-target.ts";
import { simImages } from "./sim/sim-images.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
let folder: string;
before(async () => {
  cluster = await startTestCluster();
  folder = await mkdtemp(join(tmpdir(), "watari-reverse-"));
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const migrateBody = {
  properties: { sourceSiteOperations: "Required", providerSpecificDetails: { ...simProvider, network: "prod", commit: { mode: "now" } } },
};
const pointBody = (isFinal: boolean): object => ({ properties: { isFinal } });

const reverseShape = z.looseObject({
  basisPointId: z.string(),
  points: z.array(z.looseObject({ pointId: z.string(), isFinal: z.boolean(), storedBytes: z.number(), wholeDisks: z.number() })),
  finalPointId: z.string().optional(),
  returnPointId: z.string().optional(),
});
const detailsShape = z.looseObject({ watari: z.looseObject({ reverse: reverseShape.optional() }) });

async function reverseOf(stage: SimStage): Promise<z.infer<typeof reverseShape>> {
  const { reverse } = detailsShape.parse((await stage.get()).providerSpecificDetails).watari;
  assert.ok(reverse !== undefined);
  return reverse;
}

/** As the landed machine's guest writes. */
async function write({ hub }: SimStage, offset: number, text: string): Promise<void> {
  await using file = await open(hub.target.diskPath("web", 0), "r+");
  await file.write(Buffer.from(text), 0, text.length, offset);
}

async function assertIsLanded({ hub }: SimStage, pointId: string): Promise<void> {
  const reader = await hub.openReader();
  const point = await reader.point(parsePointId(pointId));
  const [disk] = point?.disks ?? [];
  await using content = await reader.openDisk(parsePointId(pointId), disk?.diskId ?? parseDiskId("none"));
  const bytes = Buffer.alloc(content.sizeBytes);
  await content.read(0, bytes);
  assert.equal(Buffer.compare(bytes, await readFile(hub.target.diskPath("web", 0))), 0);
}

/** The source's disks as files, for who writes to them while it is off; and what gives them back. */
async function takeDisks(
  { site }: SimStage,
  into: string,
): Promise<{ readonly paths: ReadonlyMap<string, string>; giveBack(): Promise<void> }> {
  const disks = site.sources[0]?.disks ?? [];
  const paths = new Map(disks.map(({ name }) => [name, join(into, `${name}.raw`)]));
  for (const { name, content } of disks) await writeFile(paths.get(name) ?? "", content.bytes);
  const giveBack = async (): Promise<void> => {
    for (const { name, content } of disks) content.bytes.set(await readFile(paths.get(name) ?? ""));
  };
  return { paths, giveBack };
}

describe("the way back", { concurrency: 2 }, () => {
  it("ends at the source, which has what was written on the landed machine", async () => {
    await using stage = await openSimStage(cluster, { images: simImages(join(folder, "export")) });
    await stage.protect();
    await stage.done("POST", "unplannedFailover", migrateBody);
    await write(stage, 70_000, "written on the landed machine");
    await assert.rejects(stage.change("POST", `${stage.item}/reverseDelta`), { code: "StateConflict" });
    await stage.done("POST", "reversePoint", pointBody(true));
    const jobId = await stage.done("POST", "reverseDelta");
    const evidence = (await readSteps(stage.hub.services.database.db, jobId))[0]?.evidence as { files: { path: string }[] };
    const { paths: diskPaths, giveBack } = await takeDisks(stage, folder);
    const { caPem } = stage.hub;
    const options = { deltaPath: evidence.files[0]?.path ?? "", caPem, diskPaths, undoPath: join(folder, "undo") };
    const { disks } = await applyDelta({ ...options, signal: new AbortController().signal });
    await giveBack();
    const end = (told: readonly object[]): object => ({ properties: { side: "source", disks: told } });
    const wrong = disks.map(({ diskId }) => ({ diskId, root: "0".repeat(64) }));
    assert.equal((await stage.change("POST", `${stage.item}/reverseEnd`, end(wrong))).state, "failed");
    assert.equal(stage.site.sources[0]?.isOn, false);
    await stage.done("POST", "reverseEnd", end(disks.map(({ diskId, root }) => ({ diskId, root }))));
    assert.equal(stage.site.sources[0]?.isOn, true);
    const bytes = stage.site.sources[0]?.disks[0]?.content.bytes ?? new Uint8Array();
    assert.equal(bytes.at(-1), simUndoneByte, "what was edited for the target is undone");
    assert.match(Buffer.from(bytes).toString("latin1", 70_000, 70_100), /^written on the landed machine/);
    assert.equal((await stage.hub.target.status("web")).power, "stopped");
    assert.equal(stage.hub.journal.read("web").ranBoth, false);
    await assert.rejects(stage.change("POST", `${stage.item}/reverseEnd`, { properties: { side: "landed" } }), { code: "StateConflict" });
  });

  it("ends at the landed machine only once a source that may have been switched on is off", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "unplannedFailover", migrateBody);
    await stage.done("POST", "reversePoint", pointBody(true));
    const { returnPointId = "" } = await reverseOf(stage);
    const point = await (await stage.hub.openReader()).point(parsePointId(returnPointId));
    const disks = (point?.disks ?? []).map(({ diskId, root }) => ({ diskId, root }));
    stage.site.appliance.failures.set("unfence", { times: 9, code: "VcenterUnreachable" });
    const { state } = await stage.change("POST", `${stage.item}/reverseEnd`, { properties: { side: "source", disks } });
    assert.equal(state, "failed");
    const [source] = stage.site.sources;
    assert.ok(source !== undefined);
    source.isOn = true; // The order was carried out, and only its answer was lost.
    stage.site.appliance.failures.set("fence", { times: 9, code: "FenceUnconfirmed" });
    assert.equal((await stage.change("POST", `${stage.item}/reverseEnd`, { properties: { side: "landed" } })).state, "failed");
    assert.equal((await stage.hub.target.status("web")).power, "stopped");
    stage.site.appliance.failures.clear();
    await stage.done("POST", "reverseEnd", { properties: { side: "landed" } });
    assert.deepEqual([source.isOn, (await stage.hub.target.status("web")).power], [false, "running"]);
  });

  it("ends at the landed machine, which may go back once more", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "unplannedFailover", migrateBody);
    await stage.done("POST", "reversePoint", pointBody(true));
    await stage.done("POST", "reverseEnd", { properties: { side: "landed" } });
    assert.equal((await stage.hub.target.status("web")).power, "running");
    await write(stage, 70_000, "written since");
    await stage.done("POST", "reversePoint", pointBody(true));
    const { points, finalPointId } = await reverseOf(stage);
    assert.deepEqual([points.length, points[1]?.pointId], [2, finalPointId]);
    await assertIsLanded(stage, finalPointId ?? "");
  });
});

describe("a point of the way back", { concurrency: 2 }, () => {
  it("holds what the landed machine wrote, costs only what differs, and is refused before the commit", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await assert.rejects(stage.change("POST", `${stage.item}/reversePoint`, pointBody(false)), { code: "StateConflict" });
    await stage.done("POST", "unplannedFailover", migrateBody);
    await write(stage, 70_000, "written on the landed machine");
    await stage.done("POST", "reversePoint", pointBody(false));
    await write(stage, 140_000, "and later");
    await stage.done("POST", "reversePoint", pointBody(false));
    const { basisPointId, points, finalPointId } = await reverseOf(stage);
    assert.equal(finalPointId, undefined);
    assert.equal(points.length, 2);
    for (const { storedBytes } of points)
      assert.ok(storedBytes > 0 && storedBytes < 200_000, `${storedBytes} bytes are what one block costs`);
    await assertIsLanded(stage, points[1]?.pointId ?? "");
    const reader = await stage.hub.openReader();
    const parents = await Promise.all(points.map(async ({ pointId }) => (await reader.point(parsePointId(pointId)))?.parentPointId));
    assert.deepEqual(parents, [basisPointId, points[0]?.pointId]);
    assert.equal((await stage.hub.target.status("web")).power, "running", "the machine ran on");
  });

  it("is final once the machine is off: signed as equal, and nobody starts the machine any more", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "unplannedFailover", migrateBody);
    await write(stage, 70_000, "written on the landed machine");
    const jobId = await stage.done("POST", "reversePoint", pointBody(true));
    const { finalPointId = "" } = await reverseOf(stage);
    await assertIsLanded(stage, finalPointId);
    const steps = await readSteps(stage.hub.services.database.db, jobId);
    const evidence = Object.assign({}, ...steps.map((step) => step.evidence)) as { equalityReport: string };
    const { document } = await checkDocument(evidence.equalityReport, { type: equalityReportType, caPem: stage.hub.caPem });
    const report = equalityReportShape.parse(document);
    assert.deepEqual([report.isEqual, report.pointId], [true, finalPointId]);
    assert.equal((await stage.hub.target.status("web")).power, "stopped");
    await assert.rejects(stage.hub.target.under({ kind: "person", fence: 2 ** 40 }).start("web"), { code: "StateConflict" });
    await assert.rejects(stage.change("POST", `${stage.item}/reversePoint`, pointBody(false)), { code: "StateConflict" });
    assert.equal(stage.site.sources[0]?.isOn, false, "and the source is still off");
  });
});
