// The agents' control port: registration by passphrase, then the long poll that carries state and results in and orders out.

import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import {
  agentProtocolVersion,
  agentRoutes,
  pollRequestShape,
  registerRequestShape,
  renewRequestShape,
  type AgentState,
  type ApplianceWay,
  type MachineFacts,
  type PollResponse,
  type RegisterResponse,
  type RenewResponse,
} from "../../contract/agent-control.ts";
import { unitsInFlightMax } from "../../contract/agent-frames.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import { certificateDigestOf, type SiteAuthority } from "../identity/site-authority.ts";
import { isRenewalDue } from "../identity/site-certificates.ts";
import type { AgentOrders } from "./agent-orders.ts";
import { digestOfWays } from "./way-book.ts";
import {
  parseBody,
  requirePeer,
  startJsonServer,
  type JsonRequest,
  type JsonServer,
  type Peer,
  type TlsListenOptions,
} from "./json-https.ts";
import type { MachineRegistry } from "./machine-registry.ts";

/** Versions that are served: this one and the four before it, but for those whose ids of blocks meant something else. */
const versionMin = Math.max(2, agentProtocolVersion - 4);

export interface AgentListenerParts {
  readonly authority: SiteAuthority;
  readonly registry: MachineRegistry;
  readonly orders: AgentOrders;
  readonly clock: Clock;
  /** Port of the data listener, told to each agent. */
  readonly dataPort: () => number;
  /** Where agents find this appliance now and soon; nothing is told while it is empty. */
  readonly ways?: () => readonly ApplianceWay[];
  readonly log: Log;
  /** Told of each state that an agent tells. */
  readonly onState?: (machineId: MachineId, state: AgentState) => void;
  /** Told of each agent that was refused as a copy, and of each that was known as itself or registered anew (undefined). */
  readonly onIdentity?: (facts: MachineFacts, fault: Fault | undefined) => void;
}

export async function startAgentListener(
  parts: AgentListenerParts,
  listen: Pick<TlsListenOptions, "addresses" | "port" | "identity">,
): Promise<JsonServer> {
  const talk: Talk = { held: new WeakMap(), told: new Map() };
  return await startJsonServer({
    ...listen,
    caPem: parts.authority.caPem,
    log: parts.log,
    routes: {
      [agentRoutes.register]: async (request) => await register(parts, request),
      [agentRoutes.poll]: async (request) => await poll(parts, talk, request),
      [agentRoutes.renew]: async (request) => await renew(parts, request),
    },
  });
}

interface Talk {
  /** Boots that are held alive, by connection. */
  readonly held: WeakMap<TLSSocket, string>;
  /** Digests of the ways that each machine was told without waiting. */
  readonly told: Map<MachineId, string>;
}

export function checkAgentVersion(protocolVersion: number): void {
  if (protocolVersion >= versionMin && protocolVersion <= agentProtocolVersion) return;
  throw new Fault("ProtocolVersionUnsupported", `refused an agent: it speaks protocol version ${protocolVersion}`, {
    evidence: { versionMin, versionMax: agentProtocolVersion, version: protocolVersion },
  });
}

async function register(
  { authority, registry, dataPort, onIdentity }: AgentListenerParts,
  { body }: JsonRequest,
): Promise<RegisterResponse> {
  const request = parseBody(registerRequestShape, body);
  checkAgentVersion(request.protocolVersion);
  authority.checkProof(request);
  const machineId = registry.identify(request.facts);
  const certificatePem = await authority.signAgentRequest(request, machineId);
  const certificateEndsAtMs = new X509Certificate(certificatePem).validToDate.getTime();
  const appearance = { certificateDigest: certificateDigestOf(certificatePem), certificateEndsAtMs, facts: request.facts };
  registry.register(machineId, appearance, request.agentVersion);
  onIdentity?.(request.facts, undefined);
  return { machineId, certificatePem, caPem: authority.caPem, dataPort: dataPort() };
}

async function poll(parts: AgentListenerParts, { held, told }: Talk, request: JsonRequest): Promise<PollResponse> {
  const { registry, orders } = parts;
  const peer = requirePeer(request.socket);
  const call = parseBody(pollRequestShape, request.body);
  requireItself(peer, call);
  appear(parts, peer, call.facts);
  registry.recordState(peer.machineId, call.facts, call.state, call.agentVersion);
  parts.onState?.(peer.machineId, call.state);
  holdWhileOpen(parts, held, request.socket, { machineId: peer.machineId, bootId: call.facts.bootId });
  for (const result of call.results) orders.recordResult(peer.machineId, result);
  const always = { unitsInFlightMax, ...(mayRenew(parts, peer, call.state) ? { isRenewalDue: true } : {}) };
  const ready = orders.take(peer.machineId);
  const isNews = isFirstTelling(told, peer.machineId, waysFor(parts, call.state).ways);
  if (ready.length > 0 || isNews) return { orders: [...ready], ...always, ...waysFor(parts, call.state) };
  await orders.waitOrder(peer.machineId, call.waitSeconds * 1000, request.signal);
  return { orders: request.signal.aborted ? [] : [...orders.take(peer.machineId)], ...always, ...waysFor(parts, call.state) };
}

/** An agent that cannot keep them now, being frozen, is told with each answer, but not at once again and again. */
function isFirstTelling(told: Talk["told"], machineId: MachineId, ways: PollResponse["ways"]): boolean {
  if (ways === undefined) return false;
  const digest = digestOfWays(ways);
  if (told.get(machineId) === digest) return false;
  told.set(machineId, digest);
  return true;
}

/** Nothing to who has them, or would not understand. */
function waysFor({ ways }: AgentListenerParts, state: AgentState): Pick<PollResponse, "ways"> {
  const own = ways?.() ?? [];
  if (own.length === 0 || state.features?.includes("ways") !== true || state.waysDigest === digestOfWays(own)) return {};
  return { ways: [...own] };
}

/** May be asked again and again: the last answer counts, and what it replaces is good until that is used. */
async function renew({ authority, registry, log }: AgentListenerParts, { body, socket }: JsonRequest): Promise<RenewResponse> {
  const peer = requirePeer(socket);
  const call = parseBody(renewRequestShape, body);
  requireItself(peer, call);
  registry.requireKnown(peer.machineId, peer.certificateDigest);
  const certificatePem = await authority.renewAgentCertificate(call.csrPem, peer.machineId);
  registry.offer(peer.machineId, certificateDigestOf(certificatePem));
  log.info("agent's next certificate issued", { machineId: peer.machineId });
  return { certificatePem };
}

function mayRenew({ authority, clock }: AgentListenerParts, peer: Peer, state: AgentState): boolean {
  if (state.features?.includes("renewCertificate") !== true) return false;
  return isRenewalDue(peer, { nowMs: clock.nowMs(), authorityEndsAtMs: authority.endsAtMs });
}

function requireItself(peer: Peer, call: { readonly protocolVersion: number; readonly machineId: MachineId }): void {
  checkAgentVersion(call.protocolVersion);
  if (call.machineId === peer.machineId) return;
  throw new Fault("Forbidden", "refused an agent: it speaks for another machine than its certificate", {
    evidence: { machineId: call.machineId, certificateNames: peer.machineId },
  });
}

/** Takes note of the agent, or refuses it; a copy is told of with the addresses at which it can be found. */
function appear({ registry, onIdentity }: AgentListenerParts, { machineId, ...certificate }: Peer, facts: MachineFacts): void {
  try {
    registry.appear(machineId, { ...certificate, facts });
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "AgentCloned") throw error;
    const { code, message, retry, evidence } = error;
    const fault = new Fault(code, message, { retry, cause: error, evidence: { ...evidence, addressesOfCopy: facts.addresses } });
    onIdentity?.(facts, fault);
    throw fault;
  }
  onIdentity?.(facts, undefined);
}

/** The boot counts as alive for as long as its connection is open. */
function holdWhileOpen(
  { registry }: AgentListenerParts,
  held: WeakMap<TLSSocket, string>,
  socket: TLSSocket,
  boot: { readonly machineId: Parameters<MachineRegistry["holdAlive"]>[0]; readonly bootId: string },
): void {
  const key = `${boot.machineId} ${boot.bootId}`;
  if (held.get(socket) === key) return;
  held.set(socket, key);
  const hold = registry.holdAlive(boot.machineId, boot.bootId);
  socket.once("close", () => hold[Symbol.dispose]());
}
