// For tests of protected items: a hub, a simulated site and the calls on its first machine's item, each waited for.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { systemClock } from "../../../base/clock.ts";
import type { TestCluster } from "../../test-hub.ts";
import { readJob } from "../../jobs/job-store.ts";
import { openSimHub, simVault, type SimHub, type SimHubOptions } from "./sim-hub.ts";
import { openSimSite, type SimSite } from "./sim-site.ts";

const propertiesShape = z.looseObject({
  protectionState: z.string().optional(),
  testFailoverState: z.string().optional(),
  allowedOperations: z.array(z.string()).optional(),
  healthErrors: z.array(z.looseObject({ errorId: z.string(), errorCode: z.string(), customerResolvability: z.string() })).optional(),
  providerSpecificDetails: z.looseObject({}).optional(),
});
const resourceShape = z.looseObject({ id: z.string(), name: z.string(), properties: propertiesShape });
export type Shown = z.infer<typeof resourceShape>;

export interface SimStage extends AsyncDisposable {
  readonly hub: SimHub;
  readonly site: SimSite;
  /** Path of the first machine's protected item. */
  readonly item: string;
  /** Of each machine. */
  readonly items: readonly string[];
  /** Body that enables the machine, with these details beside the necessary ones. */
  enableBody(details?: object, machineIndex?: number): object;
  /** Calls, waits for the job that the call began, answers its final state and the text of its fault. */
  change(method: string, path: string, body?: unknown): Promise<{ readonly jobId: string; readonly state: string; readonly fault: string }>;
  /** As change on the item; asserts that the job succeeded. */
  done(method: string, action: string, body?: unknown): Promise<string>;
  /** All landed machines stop at once, as with their host. */
  cutPower(): Promise<void>;
  /** Another hub over the same database and machines; close the stage's own first. */
  reopen(options: Partial<SimHubOptions>): Promise<SimHub>;
  protect(details?: object): Promise<void>;
  get(path?: string): Promise<Shown["properties"]>;
  list(path: string): Promise<readonly Shown[]>;
}

/** The file of the durable target. */
const powerShape = z.object({ machines: z.array(z.tuple([z.string(), z.looseObject({})])), fences: z.array(z.unknown()) });

export const simProvider = { instanceType: "InMageAzureV2" } as const;

export async function openSimStage(
  cluster: TestCluster,
  { names = ["web"], ...options }: Partial<SimHubOptions> & { readonly names?: readonly string[] } = {},
): Promise<SimStage> {
  const database = await cluster.openFreshDatabase();
  const folder = await mkdtemp(join(tmpdir(), "ws-"));
  const settings = { database, folder, limits: { probeSeconds: 1 }, jobs: { leaseMs: 2000, pollMs: 20 }, ...options };
  const hub = await openSimHub(settings);
  const site = await openSimSite(hub, folder, names);
  const ids = site.sources.map(({ discovered }) => discovered.infrastructureId);
  const items = ids.map((id) => `${site.container}/replicationProtectedItems/${id}`);
  const [item = ""] = items;
  const enableBody = (details: object = {}, machineIndex = 0): object => ({
    properties: {
      protectableItemId: `${site.container}/replicationProtectableItems/${ids[machineIndex] ?? ""}`,
      policyId: `${simVault}/replicationPolicies/default`,
      providerSpecificDetails: { ...simProvider, runAsAccountId: "root", ...details },
    },
  });
  const change: SimStage["change"] = async (method, path, body) => {
    const answer = await hub.call(method, path, body);
    const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1];
    assert.ok(jobId !== undefined, `${method} ${path} begins an operation`);
    for (;;) {
      const job = await readJob(hub.services.database.db, jobId);
      if (job === undefined) return { jobId, state: "succeeded", fault: "" }; // It was done at once.
      if (job.endedAt !== undefined) return { jobId, state: job.state, fault: job.fault?.message ?? "" };
      await systemClock.sleep(10);
    }
  };
  const done: SimStage["done"] = async (method, action, body) => {
    const { jobId, state, fault } = await change(method, action === "" ? item : `${item}/${action}`, body);
    assert.equal(state, "succeeded", fault);
    return jobId;
  };
  return {
    hub,
    site,
    item,
    items,
    enableBody,
    change,
    done,
    cutPower: async () => {
      const { machines, fences } = powerShape.parse(JSON.parse(await readFile(join(folder, "target.json"), "utf8")));
      const stopped = machines.map(([name, machine]) => [name, { ...machine, power: "stopped" }] as const);
      await writeFile(join(folder, "target.json"), JSON.stringify({ machines: stopped, fences }));
    },
    reopen: async (more) => await openSimHub({ ...settings, ...more }),
    protect: async (details) => void (await done("PUT", "", enableBody(details))),
    get: async (path = item) => resourceShape.parse((await hub.call("GET", path)).body).properties,
    list: async (path) => z.object({ value: z.array(resourceShape) }).parse((await hub.call("GET", path)).body).value,
    [Symbol.asyncDispose]: async () => {
      await hub[Symbol.asyncDispose]();
      await site[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
