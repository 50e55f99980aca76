// Jobs and events of a vault by Microsoft's unmodified client: filters, cancel, restart and resume, export, and what each end tells.

import assert from "node:assert/strict";
import { get } from "node:https";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import {
  SiteRecoveryManagementClient,
  type ExportJobDetails,
  type InMageAzureV2EventDetails,
} from "@azure/arm-recoveryservices-siterecovery";
import { z } from "zod";
import { lookupOf } from "../../src/hub/resources/blob-client.ts";
import { collect, waitUntil } from "./journey/wait-until.ts";
import { startRig, type Rig } from "./rig.ts";

const instanceType = "InMageAzureV2" as const;
const secondsMax = 60;
let rig: Rig;
let client: SiteRecoveryManagementClient;
let vault: [string, string];
let fabric: string;
let cancelledJob = "";

before(async () => {
  rig = await startRig({ machines: 1, paceSeconds: 2 });
  client = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  vault = [rig.vault, rig.resourceGroup];
  const [first] = await collect(client.replicationFabrics.list(...vault));
  fabric = first?.name ?? "";
});
after(async () => await rig[Symbol.asyncDispose]());

const isRefused = (status: number) => (error: unknown) => error instanceof Error && "statusCode" in error && error.statusCode === status;
const listJobs = async (filter: string) => await collect(client.replicationJobs.list(...vault, { filter }));
const listEvents = async (filter: string) => await collect(client.replicationEvents.list(...vault, { filter }));

/** Begins to protect the machine; the job is under way on return. */
async function beginProtection(): Promise<string> {
  const container = [...vault, fabric, `cloud_${fabric}`] as [string, string, string, string];
  const [machine] = await collect(client.replicationProtectableItems.listByReplicationProtectionContainers(...container));
  const settings = { instanceType, recoveryPointHistory: 1440, crashConsistentFrequencyInMinutes: 5, multiVmSyncStatus: "Disable" };
  const policy = await client.replicationPolicies.beginCreateAndWait(...vault, "jobs", { properties: { providerSpecificInput: settings } });
  const known = (await client.replicationFabrics.get(...vault, fabric)).properties?.customDetails;
  const accounts = z.object({ runAsAccounts: z.array(z.object({ accountId: z.string(), accountName: z.string() })) }).parse(known);
  const runAsAccountId = accounts.runAsAccounts.find(({ accountName }) => accountName === "root")?.accountId ?? "";
  await client.replicationProtectedItems.beginCreate(...container, "jobs-item", {
    properties: {
      policyId: policy.id ?? "",
      protectableItemId: machine?.id ?? "",
      providerSpecificDetails: { instanceType, runAsAccountId, storageAccountId: "" },
    },
  });
  return await waitUntil("the job", secondsMax, async () => (await listJobs("jobName eq 'EnableProtection'"))[0]?.name);
}

describe("jobs", () => {
  it("are cancelled while they are under way, and say so", async () => {
    cancelledJob = await beginProtection();
    const [open] = await listJobs("jobStatus eq 'NotStarted,InProgress'");
    assert.equal(open?.name, cancelledJob);
    assert.deepEqual(open?.properties?.allowedActions, ["Cancel"]);
    const asked = await client.replicationJobs.beginCancelAndWait(...vault, cancelledJob);
    assert.deepEqual(asked.properties?.allowedActions, []);
    const ended = await waitUntil("the cancelled job's end", secondsMax, async () => {
      const job = await client.replicationJobs.get(...vault, cancelledJob);
      return job.properties?.state === "Cancelled" ? job : undefined;
    });
    const { properties } = ended;
    assert.equal(properties?.targetInstanceType, "ProtectionEntity");
    assert.ok((properties?.tasks?.length ?? 0) > 1);
    const [error] = properties?.errors ?? [];
    assert.equal(error?.serviceErrorDetails?.code, "JobCancelled");
    assert.equal(error.serviceErrorDetails.activityId, cancelledJob);
    assert.equal(typeof error.providerErrorDetails?.errorCode, "number");
    assert.ok(error.creationTime instanceof Date);
  });

  it("are listed by every field of the filter, and a filter that is not understood is refused", async () => {
    const namesOf = async (filter: string) => (await listJobs(filter)).map((job) => job.name);
    for (const filter of [
      `jobName eq '${cancelledJob}'`,
      "jobStatus eq 'Cancelled' and jobName eq 'enableprotection'",
      `fabricId eq '${fabric}' and affectedObjectTypes eq 'ProtectionEntity'`,
      "startTime eq '2020-01-01T00:00:00Z' and jobStatus eq 'Cancelled'",
    ])
      assert.deepEqual(await namesOf(filter), [cancelledJob], filter);
    for (const filter of ["endTime eq '2020-01-01T00:00:00Z'", "fabricId eq 'other'", "affectedObjectTypes eq 'RecoveryPlan'"])
      assert.deepEqual(await namesOf(filter), [], filter);
    for (const filter of [
      "jobStatus eq 'Sleeping'",
      "jobStatus ne 'Failed'",
      "owner eq 'me'",
      "jobStatus eq 'Failed' or true",
      "startTime eq 'soon'",
    ])
      await assert.rejects(namesOf(filter), isRefused(400), filter);
  });

  it("that do not wait for a person are not resumed, and those of a kind that begins at its resource not restarted", async () => {
    const resume = async () => await client.replicationJobs.beginResumeAndWait(...vault, cancelledJob, { properties: { comments: "go" } });
    await assert.rejects(resume, isRefused(409));
    const { properties } = await client.replicationJobs.get(...vault, cancelledJob);
    const restart = async () => await client.replicationJobs.beginRestartAndWait(...vault, cancelledJob);
    if (properties?.allowedActions?.includes("Restart") === true) assert.notEqual((await restart()).name, cancelledJob);
    else await assert.rejects(restart);
  });

  it("are exported as JSON and XML to the vault's storage; other formats are refused", async () => {
    const json = z
      .array(z.object({ name: z.string(), state: z.string(), errorCode: z.string() }))
      .parse(JSON.parse(await exported("Json")));
    assert.ok(json.some((job) => job.name === cancelledJob && job.state === "Cancelled" && job.errorCode === "JobCancelled"));
    assert.match(await exported("Xml"), new RegExp(`<jobs>[^]*<name>${cancelledJob}</name>[^]*</jobs>`));
    await assert.rejects(exported("Excel"), isRefused(400));
  });
});

async function exported(jobOutputType: string): Promise<string> {
  const job = await client.replicationJobs.beginExportAndWait(...vault, { jobOutputType, jobStatus: "Cancelled", timezoneOffset: 60 });
  assert.equal(job.properties?.state, "Succeeded");
  const details = job.properties.customDetails;
  assert.ok(details?.instanceType === "ExportJobDetails");
  const { blobUri = "", sasToken = "" } = details as ExportJobDetails; // instanceType says so.
  assert.equal((await client.replicationJobs.get(...vault, job.name ?? "")).properties?.scenarioName, "ExportJobs");
  const lookup = lookupOf(await addressOf(new URL(blobUri).hostname));
  const open = async (uri: string): Promise<{ readonly status: number | undefined; readonly body: string }> =>
    await new Promise((resolve, reject) => {
      get(uri, { lookup, agent: false }, (answer) => {
        text(answer).then((body) => resolve({ status: answer.statusCode, body }), reject);
      }).on("error", reject);
    });
  assert.notEqual((await open(blobUri)).status, 200);
  const { status, body } = await open(`${blobUri}?${sasToken}`);
  assert.equal(status, 200);
  return body;
}

/** The hub's names live in its own zones; a machine of the network would ask its resolver. */
async function addressOf(host: string): Promise<string> {
  const id = `/subscriptions/${rig.subscriptionId}/resourceGroups/${rig.resourceGroup}/providers/Microsoft.RecoveryServices/vaults/${rig.vault}`;
  const answer = await fetch(`${rig.endpoint}${id}/dnsSettings?api-version=2025-08-01`, {
    method: "POST",
    headers: { authorization: `Bearer ${await rig.token()}` },
  });
  const found = new RegExp(`"${host.replaceAll(".", "\\.")}"[^{}]*?"(\\d+\\.\\d+\\.\\d+\\.\\d+)"`).exec(await answer.text());
  return found?.[1] ?? assert.fail(`no address of ${host}`);
}

describe("events", () => {
  it("tell of the registration and of the job's end, once each", async () => {
    const ended = await listEvents("eventType eq 'JobStatus'");
    assert.equal(ended.filter((event) => event.properties?.eventCode === "EnableProtectionCancelled").length, 1);
    const event = ended.find(({ properties }) => properties?.eventCode === "EnableProtectionCancelled");
    const shown = await client.replicationEvents.get(...vault, event?.name ?? "");
    assert.deepEqual(shown, event);
    assert.ok(event?.properties?.timeOfOccurrence instanceof Date);
    assert.equal(event.properties.healthErrors?.[0]?.errorCode, "JobCancelled");
    assert.equal(event.properties.eventSpecificDetails?.instanceType, "JobStatus");
    const details = event.properties.providerSpecificDetails;
    assert.ok(details?.instanceType === instanceType);
    const { category, component, correctiveAction, summary } = details as InMageAzureV2EventDetails; // instanceType says so.
    assert.deepEqual(
      { category, component, isToldWhatToDo: correctiveAction !== "", hasSummary: summary !== "" },
      {
        category: "JobStatus",
        component: "Hub",
        isToldWhatToDo: true,
        hasSummary: true,
      },
    );
    assert.equal((await listEvents(`fabricName eq '${fabric}' and severity eq 'Info' and eventCode eq 'ApplianceRegistered'`)).length, 1);
  });

  it("are listed by every field of the filter, and a filter that is not understood is refused", async () => {
    const [ended] = await listEvents("eventCode eq 'EnableProtectionCancelled'");
    const { affectedObjectFriendlyName, affectedObjectCorrelationId } = ended?.properties ?? {};
    const both = `affectedObjectFriendlyName eq '${affectedObjectFriendlyName}' and affectedObjectCorrelationId eq '${affectedObjectCorrelationId}'`;
    assert.deepEqual(await listEvents(both), [ended]);
    const codes = (await listEvents("startTime eq '2020-01-01T00:00:00.000Z'")).map((event) => event.properties?.eventCode);
    assert.ok(codes.includes("EnableProtectionCancelled") && codes.includes("ApplianceRegistered"));
    assert.equal((await listEvents("endTime eq '2020-01-01T00:00:00.000Z'")).length, 0);
    await assert.rejects(listEvents("severity gt 'Info'"), isRefused(400));
    await assert.rejects(listEvents("colour eq 'red'"), isRefused(400));
  });
});
