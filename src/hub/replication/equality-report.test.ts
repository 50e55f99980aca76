// The equality report of a cut-over: signed, checked without a hub, provable down to blocks; no byte of it can change unnoticed.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { equalityPagesShape, toEqualityFileText } from "../../contract/equality-report.ts";
import { Fault } from "../../contract/errors.ts";
import { openAuthority } from "../pki/authority.ts";
import { checkDocument, createDocumentSigner } from "../pki/document-signer.ts";
import { checkReportFile, holdAgainst } from "../report-command.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { simVault } from "./sim/sim-hub.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const migrateBody = { properties: { sourceSiteOperations: "Required", providerSpecificDetails: { ...simProvider, network: "prod" } } };

async function reportText(stage: SimStage, jobId: string): Promise<string> {
  const path = `${simVault}/replicationJobs/${jobId}`;
  const { report } = z.object({ report: z.string() }).parse((await stage.hub.call("POST", `${path}/equalityReport`, {})).body);
  const body = { diskId: "disk-0", blocks: [0] };
  const { pages } = z.object({ pages: equalityPagesShape }).parse((await stage.hub.call("POST", `${path}/equalityPages`, body)).body);
  return toEqualityFileText({ format: "watari-equality-report", report, pages });
}

const isUntrusted = (error: unknown): boolean => error instanceof Fault && error.code === "SignatureInvalid";

describe("an equality report", { concurrency: 2 }, () => {
  it("is proved by the authority's certificate alone, names single blocks, and has no byte that can change unnoticed", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const jobId = await stage.done("POST", "unplannedFailover", migrateBody);
    const { caPem } = stage.hub;
    const text = await reportText(stage, jobId);
    const checked = await checkReportFile(text, caPem);
    assert.equal(checked.report.isEqual, true);
    assert.deepEqual([checked.report.jobId, checked.report.machineName], [jobId, "web"]);
    assert.deepEqual(
      checked.report.disks.map(({ diskId, isEqual, sourceRoot, replicaRoot }) => [diskId, isEqual, sourceRoot === replicaRoot]),
      [
        ["disk-0", true, true],
        ["disk-1", true, true],
      ],
    );
    assert.deepEqual(checked.shownBlocks, { "disk-0": 4, "disk-1": 0 });

    // Of the pages, whose digests are checked before the signature's document is used, every fifth byte will do.
    for (let at = 0; at < text.length; at += at < text.indexOf('"pages"') ? 1 : 5) {
      const other = text[at] === "A" ? "B" : "A";
      await assert.rejects(checkReportFile(text.slice(0, at) + other + text.slice(at + 1), caPem), isUntrusted, `byte ${at}`);
    }
    for (const length of [0, 1, text.length >> 1, text.length - 1])
      await assert.rejects(checkReportFile(text.slice(0, length), caPem), isUntrusted);
    await assert.rejects(checkReportFile(`${text} `, caPem), isUntrusted);

    const folder = await mkdtemp(join(tmpdir(), "wr-"));
    try {
      const other = await openAuthority({ folder, clock: systemClock, random: systemRandom });
      await assert.rejects(checkReportFile(text, other.caPem), isUntrusted);
      const image = join(folder, "disk");
      const bytes = stage.site.sources[0]?.disks[0]?.content.bytes.slice() ?? assert.fail("there is a disk");
      await writeFile(image, bytes);
      assert.equal((await holdAgainst(checked, `disk-0=${image}`)).isEqual, true);
      bytes.fill(7, 2 * 65_536, 2 * 65_536 + 1);
      await writeFile(image, bytes);
      assert.deepEqual((await holdAgainst(checked, `disk-0=${image}`)).differingBlocks, [2]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it("is also signed of disks that differ, and the source runs on", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    stage.site.appliance.tellsWrongRoots = true;
    const { jobId, state } = await stage.change("POST", `${stage.item}/unplannedFailover`, migrateBody);
    assert.equal(state, "failed");
    const { report } = await checkReportFile(await reportText(stage, jobId), stage.hub.caPem);
    assert.deepEqual([report.isEqual, report.disks.map(({ isEqual }) => isEqual)], [false, [false, false]]);
    assert.equal(stage.site.sources[0]?.isOn, true);
  });

  it("is signed by nobody but the hub: certificates of servers and appliances of the same authority sign none", async () => {
    const folder = await mkdtemp(join(tmpdir(), "wr-"));
    try {
      const authority = await openAuthority({ folder, clock: systemClock, random: systemRandom });
      const impostor = { caPem: authority.caPem, signingCertificate: async () => await authority.serverCertificate("a.watari.test") };
      const forged = await createDocumentSigner({ authority: impostor, clock: systemClock }).sign("t", {});
      await assert.rejects(checkDocument(forged, { type: "t", caPem: authority.caPem }), isUntrusted);
      const genuine = await createDocumentSigner({ authority, clock: systemClock }).sign("t", {});
      assert.deepEqual((await checkDocument(genuine, { type: "t", caPem: authority.caPem })).document, {});
      await assert.rejects(checkDocument(genuine, { type: "other", caPem: authority.caPem }), isUntrusted);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
