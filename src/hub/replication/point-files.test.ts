// Promises of files out of recovery points: listed and read as they were at the point, by signed addresses alone, from any byte on.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { runCommand } from "../../base/run-command.ts";
import { systemClock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { readJob } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimHub, simVault, type SimHub } from "./sim/sim-hub.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";

let cluster: TestCluster;
let hub: SimHub;
let site: SimSite;
let folder: string;
let point: string;
const closing = new AsyncDisposableStack();
const content = randomBytes(90_000);

before(async () => {
  cluster = closing.use(await startTestCluster());
  folder = await mkdtemp(join(tmpdir(), "wf-"));
  closing.defer(async () => await rm(folder, { recursive: true, force: true }));
  const database = closing.use(await cluster.openFreshDatabase());
  hub = closing.use(await openSimHub({ database, folder, limits: {}, jobs: { leaseMs: 5000, pollMs: 20 } }));
  site = closing.use(await openSimSite(hub, folder, ["web"]));
  const bytes = site.sources[0]?.disks[0]?.content.bytes ?? assert.fail("the source has a disk");
  await mkdir(join(folder, "tree", "etc"), { recursive: true });
  await writeFile(join(folder, "tree", "etc", "hostname"), "web\n", { mode: 0o600 });
  await writeFile(join(folder, "tree", "data"), content);
  const image = join(folder, "disk.img");
  await runCommand("mke2fs", ["-q", "-F", "-t", "ext2", "-b", "1024", "-d", join(folder, "tree"), image, `${bytes.length / 1024}k`]);
  bytes.set((await readFile(image)).subarray(1024), 1024); // What the simulated guest says of itself stays in front.
  const properties = {
    protectableItemId: `${site.container}/replicationProtectableItems/${site.sources[0]?.discovered.infrastructureId}`,
    policyId: `${simVault}/replicationPolicies/default`,
    providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
  };
  const item = `${site.container}/replicationProtectedItems/${site.sources[0]?.discovered.infrastructureId}`;
  const { headers } = await hub.call("PUT", item, { properties });
  const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
  while ((await readJob(database.db, jobId))?.endedAt === undefined) await systemClock.sleep(20);
  const { value } = (await hub.call("GET", `${item}/recoveryPoints`)).body as { readonly value: readonly { readonly id: string }[] }; // Every ARM list has it.
  point = value[0]?.id ?? assert.fail("there is a point");
  bytes.fill(0, 1024); // The guest goes on; the point stays.
});
after(async () => await closing.disposeAsync());

const isRefused = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

interface Listed {
  readonly volumes?: readonly Record<string, unknown>[];
  readonly entries?: readonly Record<string, unknown>[];
}

async function list(body: object): Promise<Listed> {
  return (await hub.call("POST", `${point}/listFiles`, body)).body as Listed; // As the answer is described.
}

async function fetchBytes(body: object, from?: number): Promise<Buffer> {
  const { url } = (await hub.call("POST", `${point}/fileArchive`, body)).body as { readonly url: string }; // As described.
  return await readAddress(url, from);
}

async function readAddress(address: string, from?: number): Promise<Buffer> {
  const url = new URL(address);
  const gone = new AbortController();
  const query = { ...Object.fromEntries(url.searchParams), ...(from === undefined ? {} : { from: String(from) }) };
  try {
    const found = await hub.services.signedReads.read(decodeURI(url.pathname), query, gone.signal);
    assert.equal(found.kind, "bytes");
    return found.kind === "bytes" ? Buffer.concat(await Array.fromAsync(found.bytes)) : Buffer.alloc(0);
  } finally {
    gone.abort();
  }
}

describe("Files of a recovery point", () => {
  it("are listed by volume and folder, with what is told of each", async () => {
    const { volumes } = await list({});
    assert.deepEqual(
      volumes?.map(({ name, filesystem, isReadable }) => [name, filesystem, isReadable]),
      [
        ["1.0", "ext", true],
        ["2.0", "unknown", false],
      ].slice(0, volumes?.length),
    );
    const { entries } = await list({ volume: "1.0", path: "/etc" });
    assert.deepEqual(
      entries?.map(({ name, kind, mode, sizeBytes }) => [name, kind, mode, sizeBytes]),
      [["hostname", "file", "0600", 4]],
    );
  });

  it("are read as they were, from any byte on, one as it is or many as an archive", async () => {
    const wish = { volume: "1.0", paths: ["/data"], format: "file" };
    assert.ok((await fetchBytes(wish)).equals(content));
    assert.ok((await fetchBytes(wish, 70_001)).equals(content.subarray(70_001)));
    const path = join(folder, "all.tar");
    await writeFile(path, await fetchBytes({ volume: "1.0", paths: ["/etc", "/data"] }));
    const { stdout } = await runCommand("tar", ["-xOf", path, "etc/hostname"]);
    assert.equal(stdout, "web\n");
  });

  it("are refused where they are not, and without the hub's own signature", async () => {
    await assert.rejects(list({ volume: "1.0", path: "/none" }), isRefused("NotFound"));
    await assert.rejects(list({ volume: "9.9" }), isRefused("NotFound"));
    await assert.rejects(fetchBytes({ volume: "1.0", paths: ["/none"] }), isRefused("NotFound"));
    await assert.rejects(fetchBytes({ volume: "1.0", paths: ["/etc"], format: "file" }), isRefused("InputInvalid"));
    const { url } = (await hub.call("POST", `${point}/fileArchive`, { volume: "1.0", paths: ["/data"] })).body as { readonly url: string }; // As described.
    const other = new URL(url);
    other.pathname = other.pathname.replace(/[^/]+$/, Buffer.from("{}").toString("base64url"));
    await assert.rejects(readAddress(other.toString()), isRefused("Forbidden"));
    await assert.rejects(
      hub.call("POST", `${point.replace(/[^/]+$/, "00000000-0000-0000-0000-000000000000")}/listFiles`, {}),
      isRefused("NotFound"),
    );
  });

  it("are read by so many at once, and places come back when lines end", async () => {
    const { url } = (await hub.call("POST", `${point}/fileArchive`, { volume: "1.0", paths: ["/data"] })).body as { readonly url: string }; // As described.
    const { pathname, searchParams } = new URL(url);
    const lines = Array.from({ length: 8 }, () => new AbortController());
    const begin = async (signal: AbortSignal): Promise<unknown> =>
      await hub.services.signedReads.read(decodeURI(pathname), Object.fromEntries(searchParams), signal);
    for (const { signal } of lines) await begin(signal);
    await assert.rejects(begin(new AbortController().signal), isRefused("TooManyRequests"));
    for (const line of lines) line.abort();
    assert.ok((await readAddress(url)).length > content.length);
  });
});
