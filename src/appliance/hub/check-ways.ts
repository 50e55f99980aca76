// Every way that the appliance needs, tried hop by hop: to the hub's private names, the storage account, public names, its vCenters; and rights.

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import { networkChecksMax, type NetworkCheck } from "../../contract/network-check.ts";
import type { Connector } from "../../connectivity/connector.ts";
import { probeAll, type CheckResult, type ProbeTarget } from "../../connectivity/probe.ts";
import type { PathOptions } from "../../connectivity/path-opener.ts";
import { openAzureBlobStore } from "../../store/azure-blob-store.ts";
import type { StorageGrant } from "../../contract/appliance-protocol.ts";

export interface WaysParts {
  readonly applianceId: string;
  /** To the hub, the storage account and what is public. */
  readonly checkHops: (signal: AbortSignal) => Promise<readonly CheckResult[]>;
  readonly vcenters: readonly { readonly name: string; readonly host: string; readonly port: number }[];
  readonly sitePath: PathOptions;
  /** The way that packs take. */
  readonly connector: Connector;
  readonly grant: () => StorageGrant;
  readonly clock: Clock;
  readonly random: Random;
}

/** Never throws for what the network or the storage account does. */
export async function checkWays(parts: WaysParts, signal: AbortSignal): Promise<readonly NetworkCheck[]> {
  // Certificates of vCenters are trusted by what was given with each; here only the way is tried.
  const targets = parts.vcenters.map(({ name, host, port }): ProbeTarget => ({
    id: `vcenter ${name}`,
    role: "appliance",
    host,
    port,
    upTo: "tcp",
  }));
  const [hops, sites, rights] = await Promise.all([
    parts.checkHops(signal),
    probeAll(targets, parts.sitePath, signal),
    checkRights(parts, signal),
  ]);
  return [...hops, ...sites, ...rights].slice(0, networkChecksMax).map(bounded);
}

const textMax = 4000;

/** A hub refuses what is longer than it may be; the end of such a text tells least. */
function bounded({ repair, ...check }: NetworkCheck): NetworkCheck {
  const { id, to, tried, answer } = check;
  const texts = { id: id.slice(-400), to: to.slice(0, 300), tried: tried.slice(0, textMax), answer: answer.slice(0, textMax) };
  return { ...check, ...texts, ...(repair === undefined ? {} : { repair: repair.slice(0, textMax) }) };
}

const trialBytes = 64;

/** Writes, reads, lists and removes a small object under a name that holds nothing else. */
async function checkRights(parts: WaysParts, signal: AbortSignal): Promise<readonly NetworkCheck[]> {
  const { grant, connector, clock, random, applianceId } = parts;
  const { accountUrl, container, sas } = grant();
  const key = `checks/${applianceId}/${random.uuid()}`;
  await using store = openAzureBlobStore({
    accountUrl,
    container,
    credential: { kind: "sas", sas: async () => await Promise.resolve(sas) },
    agent: connector.httpsAgent,
  });
  const content = random.bytes(trialBytes);
  const results: NetworkCheck[] = [];
  const attempt = async (right: string, task: () => Promise<string>): Promise<void> => {
    const beganMs = clock.monotonicMs();
    const tried = {
      id: `storage rights/${right}`,
      role: "appliance",
      hop: right,
      to: `${accountUrl}/${container}`,
      tried: `${right} ${key}`,
    };
    if (results.some(({ verdict }) => verdict === "fail")) {
      results.push({ ...tried, answer: "not tried after the failure before", latencyMs: 0, verdict: "skipped" });
      return;
    }
    try {
      const answer = await task();
      results.push({ ...tried, answer, latencyMs: clock.monotonicMs() - beganMs, verdict: "pass" });
    } catch (error) {
      signal.throwIfAborted();
      const fault = asFault(error, `${right} in the storage account`);
      const repair =
        "see on the hub whether the vault's identity has Storage Blob Data Contributor on the storage account, and whether its private endpoint is approved";
      results.push({
        ...tried,
        ...{ answer: fault.message, latencyMs: clock.monotonicMs() - beganMs, verdict: "fail", fault: toReport(fault), repair },
      });
    }
  };
  await attempt("write", async () => {
    await store.put(key, content, signal);
    return `${trialBytes} bytes written`;
  });
  await attempt("read", async () => {
    const found = await store.get(key, undefined, signal);
    if (found === undefined || !Buffer.from(content).equals(found)) throw new Fault("DataDamaged", "what was written is not what is read");
    return "the same bytes";
  });
  await attempt("list", async () => {
    for await (const each of store.list(`checks/${applianceId}/`, signal)) if (each.key === key) return "it is listed";
    throw new Fault("StoreUnavailable", "what was written is not listed");
  });
  // Also what an earlier check left that was cut.
  await attempt("remove", async () => {
    for await (const each of store.list(`checks/${applianceId}/`, signal)) await store.remove(each.key, signal);
    return "it is gone";
  });
  return results;
}
