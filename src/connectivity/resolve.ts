// Finds the addresses of a name and holds them against the topology: a private name with a public address is a fault.

import { lookup as systemLookup, Resolver } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import type { Clock } from "../base/clock.ts";
import { Fault } from "../contract/errors.ts";
import type { Decision } from "./decision.ts";
import { splitServerAddress, type Topology } from "./topology.ts";

const cacheEntriesMax = 1024;
const cacheMsMax = 30_000;
const systemCacheMs = 5_000;
const queryTimeoutMs = 2_000;
const triesPerServer = 2;
/** More answers than this are cut; a name of ours never has so many. */
const answersMax = 16;

/** Who answered, and what. */
export interface Resolution {
  readonly name: string;
  readonly addresses: readonly string[];
  /** "192.0.2.53:53", "system resolver", "hosts of the topology" or "address literal". */
  readonly server: string;
}

export interface NameResolver {
  /** All addresses of the name, IPv4 first. Throws NameUnresolved. Answers are kept for their TTL, at most 30 s. */
  resolve(name: string): Promise<Resolution>;
  /** Forgets all kept answers, for a check that must see the present. */
  forget(): void;
}

export function createNameResolver({ topology, clock }: { readonly topology: Topology; readonly clock: Clock }): NameResolver {
  const kept = new Map<string, { readonly resolution: Resolution; readonly endsAtMs: number }>();
  return {
    resolve: async (name) => {
      const found = kept.get(name);
      if (found !== undefined && found.endsAtMs > clock.monotonicMs()) return found.resolution;
      const { resolution, keepMs } = await resolveNow(topology, name);
      kept.delete(name);
      const oldest = kept.keys().next();
      if (kept.size >= cacheEntriesMax && oldest.done !== true) kept.delete(oldest.value);
      kept.set(name, { resolution, endsAtMs: clock.monotonicMs() + Math.min(keepMs, cacheMsMax) });
      return resolution;
    },
    forget: () => kept.clear(),
  };
}

/** What one source says of a name: addresses, or the code of its failure. */
export interface SourceAnswer {
  readonly server: string;
  readonly addresses: readonly string[];
  readonly failure?: string;
}

/** Asks every source that could answer: fixed hosts, each server, or the system. For a check that must see a stale one. */
export async function surveyName(topology: Topology, name: string): Promise<readonly SourceAnswer[]> {
  if (isIP(name) !== 0) return [{ server: "address literal", addresses: [name] }];
  const fixed = topology.hosts.filter((entry) => entry.name === name);
  const told = fixed.map(({ addresses }): SourceAnswer => ({ server: "hosts of the topology", addresses }));
  const asked =
    topology.dnsServers.length === 0 && told.length === 0
      ? [askSystem(name)]
      : topology.dnsServers.map(async (server) => await askServer(server, name));
  const answers = await Promise.allSettled(asked);
  return [
    ...told,
    ...(await askHostsFile(name)),
    ...answers.map((answer, index): SourceAnswer => {
      const server = topology.dnsServers[index] ?? "system resolver";
      if (answer.status === "rejected") return { server, addresses: [], failure: failureCode(answer.reason) };
      return answer.value === undefined
        ? { server, addresses: [], failure: "ENODATA" }
        : { server: answer.value.resolution.server, addresses: answer.value.resolution.addresses };
    }),
  ];
}

const hostsFile = "/etc/hosts";

/** Every other program of the machine believes its hosts file first, so a stale line there is told. */
async function askHostsFile(name: string): Promise<readonly SourceAnswer[]> {
  const text = await readFile(hostsFile, "utf8").catch(() => ""); // A machine without one has nothing stale.
  const addresses = text.split("\n").flatMap((line) => {
    const [address = "", ...names] = (line.split("#", 1)[0] ?? "").trim().split(/\s+/);
    return isIP(address) !== 0 && names.some((each) => each.toLowerCase() === name) ? [address] : [];
  });
  return addresses.length === 0 ? [] : [{ server: hostsFile, addresses }];
}

function failureCode(error: unknown): string {
  return error instanceof Fault && error.cause !== undefined ? errorCode(error.cause) : errorCode(error);
}

/** Pure: throws NameAnswersDiffer when two sources answer with different addresses, or not with those that are expected. */
export function compareAnswers(name: string, answers: readonly SourceAnswer[], expected: readonly string[] | undefined): void {
  const spell = (addresses: readonly string[]): string => addresses.toSorted().join(" ");
  const given = answers.filter(({ addresses }) => addresses.length > 0);
  const wanted = expected ?? given[0]?.addresses ?? [];
  const wrong = given.filter(({ addresses }) => spell(addresses) !== spell(wanted));
  if (wrong.length === 0) return;
  const first = wrong[0]?.server ?? "";
  throw new Fault(
    "NameAnswersDiffer",
    `could not trust the answers for ${name}: ${expected === undefined ? "they differ" : "they are not the expected ones"}`,
    {
      evidence: {
        name,
        answers: answers.map(({ server, addresses, failure }) => `${server}: ${failure ?? addresses.join(" ")}`),
        ...(expected === undefined ? {} : { expected: [...expected] }),
      },
      action: `make ${first} answer ${name} with ${wanted.join(" ")}; check with: getent ahosts ${name}`,
    },
  );
}

/** Pure: throws PrivateNamePublic unless every answer of a private name lies in the private ranges. */
export function checkAnswers(topology: Topology, decision: Decision, resolution: Resolution): void {
  if (decision.kind !== "private") return;
  const outside = resolution.addresses.filter((address) => !topology.privateRanges.contains(address));
  if (outside.length === 0) return;
  throw new Fault("PrivateNamePublic", `refused to reach ${decision.host}: the name is private and was answered with another address`, {
    evidence: {
      name: decision.host,
      answers: [...resolution.addresses],
      outside,
      privateRanges: [...topology.privateRanges.texts],
      server: resolution.server,
    },
    action: `make ${resolution.server} answer ${decision.host} with its private endpoint's address; check with: getent ahosts ${decision.host}`,
  });
}

interface Answer {
  readonly resolution: Resolution;
  readonly keepMs: number;
}

async function resolveNow(topology: Topology, name: string): Promise<Answer> {
  if (isIP(name) !== 0) return { resolution: { name, addresses: [name], server: "address literal" }, keepMs: cacheMsMax };
  const fixed = topology.hosts.find((entry) => entry.name === name);
  if (fixed !== undefined) {
    return { resolution: { name, addresses: fixed.addresses, server: "hosts of the topology" }, keepMs: cacheMsMax };
  }
  return topology.dnsServers.length === 0 ? await askSystem(name) : await askServers(topology.dnsServers, name);
}

async function askSystem(name: string): Promise<Answer> {
  try {
    const answers = await systemLookup(name, { all: true, order: "ipv4first" });
    const addresses = answers.slice(0, answersMax).map((answer) => answer.address);
    return { resolution: { name, addresses, server: "system resolver" }, keepMs: systemCacheMs };
  } catch (error) {
    throw unresolved(name, "system resolver", [errorCode(error)], error);
  }
}

/** Asks one server after the other; the first that answers with addresses is believed, so that the evidence names it. */
async function askServers(servers: readonly string[], name: string): Promise<Answer> {
  const told: string[] = [];
  let lastError: unknown;
  for (const server of servers) {
    try {
      const answer = await askServer(server, name);
      if (answer !== undefined) return answer;
      told.push(`${server}: ENODATA`);
    } catch (error) {
      lastError = error;
      told.push(`${server}: ${errorCode(error)}`);
    }
  }
  throw unresolved(name, servers.join(" "), told, lastError);
}

async function askServer(server: string, name: string): Promise<Answer | undefined> {
  const { address, port } = splitServerAddress(server) ?? { address: server, port: 53 };
  const label = address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
  const resolver = new Resolver({ timeout: queryTimeoutMs, tries: triesPerServer });
  resolver.setServers([label]);
  const [four, six] = await Promise.allSettled([resolver.resolve4(name, { ttl: true }), resolver.resolve6(name, { ttl: true })]);
  const records = [...(four.status === "fulfilled" ? four.value : []), ...(six.status === "fulfilled" ? six.value : [])];
  if (records.length > 0) {
    const cut = records.slice(0, answersMax);
    const keepMs = Math.min(...cut.map((record) => record.ttl)) * 1000;
    return { resolution: { name, addresses: cut.map((record) => record.address), server: label }, keepMs };
  }
  const failures: unknown[] = [four, six].flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
  const failure = failures.find((error) => errorCode(error) !== "ENODATA");
  if (failure !== undefined) throw failure instanceof Error ? failure : new Error("the resolver gave no reason");
  return undefined;
}

function unresolved(name: string, server: string, told: readonly string[], cause: unknown): Fault {
  return new Fault("NameUnresolved", `could not resolve ${name}`, { evidence: { name, server, answers: told }, cause });
}

/** The system's code for a failure, such as ENOTFOUND; "unknown" when it has none. */
export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "unknown";
}
