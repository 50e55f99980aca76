// Runs a registered agent over a source, real or simulated, until it is stopped or uninstalled.

import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import {
  agentProtocolVersion,
  agentRoutes,
  pollResponseShape,
  renewResponseShape,
  type MachineFacts,
  type PollRequest,
  type PollResponse,
} from "../contract/agent-control.ts";
import { CertificateKeeper } from "./identity/agent-certificate.ts";
import { checkAgentWays } from "./identity/check-ways.ts";
import type { PostOptions } from "./identity/appliance-client.ts";
import { ApplianceWays, connectOver, postOver } from "./identity/appliance-ways.ts";
import { loadIdentity, requireOriginal } from "./identity/registration.ts";
import { tellCopy } from "./identity/tell-copy.ts";
import type { AgentLog } from "./log.ts";
import { ControlLoop } from "./orders/control-loop.ts";
import { OrderBook } from "./orders/order-book.ts";
import { Replicator } from "./points/replicator.ts";
import type { BlockThreads } from "./sender/block-work.ts";
import type { ReadStall } from "./sender/guest-load.ts";
import type { Source } from "./source.ts";
import { agentVersion } from "./version.ts";

export interface AgentOptions {
  readonly source: Source;
  readonly stateFolder: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cpuShareMax?: number;
  readonly readStall?: ReadStall;
  readonly threads?: BlockThreads;
  readonly bytesPerSecondMax?: number;
}

/** Resolves when the signal has ended, or "uninstall" when the appliance has had its answer to that order. Throws AgentCloned. */
export async function runAgent(options: AgentOptions, signal: AbortSignal): Promise<"stopped" | "uninstall"> {
  const { source, stateFolder, clock, random, log } = options;
  const { identity, trust, certificate } = await loadIdentity(stateFolder);
  const { machineId } = identity;
  const ways = new ApplianceWays({ stateFolder, identity, log, isFrozen: () => replicator.isFrozen });
  const post = async <T>(call: Pick<PostOptions<T>, "path" | "body" | "shape">, abort: AbortSignal): Promise<T> =>
    await postOver(ways, { ...call, trust, timeoutMs: 60_000, signal: abort });
  const keeper = new CertificateKeeper({
    ...{ certificate, name: machineId, log, isFrozen: () => replicator.isFrozen },
    ask: async (csrPem, abort) => {
      const body = { protocolVersion: agentProtocolVersion, machineId, csrPem };
      return (await post({ path: agentRoutes.renew, body, shape: renewResponseShape }, abort)).certificatePem;
    },
  });
  const poll = async (body: PollRequest, abort: AbortSignal): Promise<PollResponse> => {
    const { toldDigest } = ways;
    const told = { ...body, state: { ...body.state, ...(toldDigest === undefined ? {} : { waysDigest: toldDigest }) } };
    const call = { path: agentRoutes.poll, body: told, shape: pollResponseShape };
    const answer = await keeper.use(async () => await post(call, abort), signal);
    await ways.learn(answer.ways);
    return answer;
  };
  const replicator = new Replicator({
    ...options,
    connect: async (abort) => await connectOver(ways, trust, abort),
    cpuSeconds: () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    },
    residentBytes: () => process.memoryUsage.rss(),
    finishWrites: async () => void (await Promise.all([book.written(), keeper.settled(), ways.settled()])),
  });
  const refuseCopy = async (facts: MachineFacts): Promise<void> => {
    try {
      requireOriginal(identity, facts);
    } catch (error) {
      const request = { protocolVersion: agentProtocolVersion, machineId, agentVersion, facts, state: replicator.state(), results: [] };
      await tellCopy({ identity, facts, request: { ...request, waitSeconds: 0 }, poll, clock, log }, signal);
      throw error;
    }
  };
  await refuseCopy(await source.facts());
  await replicator.load();
  const book = new OrderBook(stateFolder, () => replicator.isFrozen);
  await book.load();
  const loop = new ControlLoop({
    machineId,
    source,
    replicator,
    book,
    poll,
    refuseCopy,
    checkWays: async () => await checkAgentWays({ ...ways.current, trust, clock }),
    clock,
    random,
    log,
  });
  const ending = new AbortController();
  const both = AbortSignal.any([signal, ending.signal]);
  const copying = replicator.run(both);
  log.info("agent started", { machineId });
  try {
    return await loop.run(both);
  } finally {
    ending.abort();
    await copying;
    log.info("agent stopped");
  }
}
