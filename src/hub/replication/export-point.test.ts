// Export of a recovery point: refused without a folder, the point's own bytes as files, and none of them after a failure.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { removeImages } from "../../landing/qemu/write-images.ts";
import { readJob, readSteps } from "../jobs/job-store.ts";
import type { JobRecord } from "../jobs/job.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimHub, simVault, type SimHub } from "./sim/sim-hub.ts";
import { openSimSite } from "./sim/sim-site.ts";
import type { ImageFolder } from "./world.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const evidenceShape = z.looseObject({
  definition: z.string().optional(),
  files: z.array(z.object({ path: z.string(), sizeBytes: z.number() })),
  pointId: z.string(),
});
const itemShape = z.looseObject({ properties: z.looseObject({ protectionState: z.string() }) });

/** Writes what it is given, as the landing does; fails after the first disk while `failures` are left. */
function folderAt(folder: string, failures: { left: number }): ImageFolder {
  return {
    folder,
    remove: removeImages,
    write: async (wish) => {
      const files: { path: string; sizeBytes: number }[] = [];
      await mkdir(wish.folder, { recursive: true });
      for (const [index, { content }] of wish.disks.entries()) {
        const bytes = new Uint8Array(content.sizeBytes);
        await content.read(0, bytes);
        const path = join(wish.folder, `disk${index}.${wish.format}`);
        await writeFile(path, bytes);
        files.push({ path, sizeBytes: bytes.length });
        wish.onProgress(100);
        if (failures.left-- > 0) throw new Fault("LandingFailed", "the disk is full", { retry: "never" });
      }
      return { files, changes: ["nothing"] };
    },
  };
}

interface Stage extends AsyncDisposable {
  readonly hub: SimHub;
  readonly item: string;
  readonly out: string;
}

async function openStage(failures: { left: number } | undefined): Promise<Stage> {
  const database = await cluster.openFreshDatabase();
  const folder = await mkdtemp(join(tmpdir(), "wx-"));
  const out = join(folder, "out");
  const common = { database, folder, limits: {}, jobs: { leaseMs: 2000, pollMs: 20 } };
  const hub = await openSimHub({ ...common, ...(failures === undefined ? {} : { images: folderAt(out, failures) }) });
  const site = await openSimSite(hub, folder, ["web"]);
  const id = site.sources[0]?.discovered.infrastructureId ?? "";
  const item = `${site.container}/replicationProtectedItems/${id}`;
  const protectableItemId = `${site.container}/replicationProtectableItems/${id}`;
  const providerSpecificDetails = { instanceType: "InMageAzureV2", runAsAccountId: "root" };
  const properties = { protectableItemId, policyId: `${simVault}/replicationPolicies/default`, providerSpecificDetails };
  assert.equal((await change(hub, "PUT", item, { properties })).state, "succeeded");
  const close = async (): Promise<void> => {
    await hub[Symbol.asyncDispose]();
    await site[Symbol.asyncDispose]();
    await database[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  };
  return { hub, item, out, [Symbol.asyncDispose]: close };
}

async function change(hub: SimHub, method: string, path: string, body: unknown): Promise<JobRecord> {
  const answer = await hub.call(method, path, body);
  const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1] ?? "";
  for (;;) {
    const job = await readJob(hub.services.database.db, jobId);
    if (job?.endedAt !== undefined) return job;
    await systemClock.sleep(10);
  }
}

const wish = (more: object = {}): object => ({
  properties: { providerSpecificDetails: { instanceType: "InMageAzureV2", format: "raw", ...more } },
});

async function evidenceOf(hub: SimHub, { jobId }: JobRecord): Promise<z.infer<typeof evidenceShape>> {
  const steps = await readSteps(hub.services.database.db, jobId);
  return evidenceShape.parse(Object.assign({}, ...steps.map((step) => step.evidence)));
}

describe("export of a recovery point", { concurrency: 3 }, () => {
  it("is refused by a hub that has no folder for files, and says which setting makes one", async () => {
    await using stage = await openStage(undefined);
    const job = await change(stage.hub, "POST", `${stage.item}/export`, wish());
    assert.equal(job.fault?.id, "OperationNotSupported");
    assert.match(job.fault?.action ?? "", /landing\.exportFolder/);
  });

  it("writes the bytes of the latest point, and of the one that is named", async () => {
    await using stage = await openStage({ left: 0 });
    const { hub, item, out } = stage;
    const job = await change(hub, "POST", `${item}/export`, wish());
    assert.equal(job.state, "succeeded", job.fault?.message ?? "");
    const { files, pointId } = await evidenceOf(hub, job);
    assert.equal(files.length > 0, true);
    for (const { path, sizeBytes } of files) {
      assert.ok(path.startsWith(`${out}/web-`));
      assert.equal((await readFile(path)).length, sizeBytes);
    }
    const again = await evidenceOf(
      hub,
      await change(hub, "POST", `${item}/export`, wish({ recoveryPointId: `${item}/recoveryPoints/${pointId}` })),
    );
    assert.deepEqual(again.files, files, "the same point goes to the same place");
    await assert.rejects(
      hub.call("POST", `${item}/export`, wish({ format: "vdi" })),
      (error: unknown) => error instanceof Fault && error.code === "InputInvalid",
    );
  });

  it("writes a definition for the platform that is asked for, beside disks in the form that it takes", async () => {
    await using stage = await openStage({ left: 0 });
    const { hub, item } = stage;
    const asked = { providerSpecificDetails: { instanceType: "InMageAzureV2", platform: "proxmox" } };
    const job = await change(hub, "POST", `${item}/export`, { properties: asked });
    assert.equal(job.state, "succeeded", job.fault?.message ?? "");
    const { files, definition } = await evidenceOf(hub, job);
    assert.ok(files.every(({ path }) => path.endsWith(".qcow2")));
    const text = await readFile(definition ?? "", "utf8");
    assert.match(text, /qm create "\$vmid" --name web /);
    assert.ok(text.includes("import-from=$folder/disk0.qcow2"));
    for (const wrong of [{ platform: "proxmox", format: "vhd" }, {}])
      await assert.rejects(
        hub.call("POST", `${item}/export`, { properties: { providerSpecificDetails: { instanceType: "InMageAzureV2", ...wrong } } }),
        (error: unknown) => error instanceof Fault && error.code === "InputInvalid",
      );
  });

  it("leaves no file after a failure, and works when it is called again", async () => {
    const failures = { left: 1 };
    await using stage = await openStage(failures);
    const { hub, item, out } = stage;
    const failed = await change(hub, "POST", `${item}/export`, wish());
    assert.equal(failed.fault?.id, "LandingFailed");
    const { folder } = z
      .looseObject({ folder: z.string() })
      .parse(Object.assign({}, ...(await readSteps(hub.services.database.db, failed.jobId)).map((step) => step.evidence)));
    assert.ok(folder.startsWith(out));
    assert.equal(existsSync(join(folder, "disk0.raw")), false);
    assert.equal(itemShape.parse((await hub.call("GET", item)).body).properties.protectionState, "Protected");
    assert.equal((await change(hub, "POST", `${item}/export`, wish())).state, "succeeded");
  });
});
