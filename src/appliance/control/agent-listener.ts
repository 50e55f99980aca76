// The agents' control port: registration by passphrase, then the long poll that carries state and results in and orders out.

import type { TLSSocket } from "node:tls";
import type { Log } from "../../base/log.ts";
import {
  agentProtocolVersion,
  agentRoutes,
  pollRequestShape,
  registerRequestShape,
  type AgentState,
  type MachineFacts,
  type PollResponse,
  type RegisterResponse,
} from "../../contract/agent-control.ts";
import { unitsInFlightMax } from "../../contract/agent-frames.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import { certificateDigestOf, type SiteAuthority } from "../identity/site-authority.ts";
import type { AgentOrders } from "./agent-orders.ts";
import { parseBody, peerOf, startJsonServer, type JsonRequest, type JsonServer, type Peer, type TlsListenOptions } from "./json-https.ts";
import type { MachineRegistry } from "./machine-registry.ts";

/** Versions that are served: this one and the four before it. */
/** Ids of blocks meant something else before. */
const versionMin = Math.max(2, agentProtocolVersion - 4);

export interface AgentListenerParts {
  readonly authority: SiteAuthority;
  readonly registry: MachineRegistry;
  readonly orders: AgentOrders;
  /** Port of the data listener, told to each agent. */
  readonly dataPort: () => number;
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
  const held = new WeakMap<TLSSocket, string>();
  return await startJsonServer({
    ...listen,
    caPem: parts.authority.caPem,
    log: parts.log,
    routes: {
      [agentRoutes.register]: async (request) => await register(parts, request),
      [agentRoutes.poll]: async (request) => await poll(parts, held, request),
    },
  });
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
  registry.register(machineId, { certificateDigest: certificateDigestOf(certificatePem), facts: request.facts }, request.agentVersion);
  onIdentity?.(request.facts, undefined);
  return { machineId, certificatePem, caPem: authority.caPem, dataPort: dataPort() };
}

async function poll(parts: AgentListenerParts, held: WeakMap<TLSSocket, string>, request: JsonRequest): Promise<PollResponse> {
  const { registry, orders } = parts;
  const peer = peerOf(request.socket);
  if (peer === undefined) throw new Fault("Unauthorized", "refused an agent: it showed no certificate of this site");
  const call = parseBody(pollRequestShape, request.body);
  checkAgentVersion(call.protocolVersion);
  if (call.machineId !== peer.machineId) {
    throw new Fault("Forbidden", "refused an agent: it speaks for another machine than its certificate", {
      evidence: { machineId: call.machineId, certificateNames: peer.machineId },
    });
  }
  appear(parts, peer, call.facts);
  registry.recordState(peer.machineId, call.facts, call.state, call.agentVersion);
  parts.onState?.(peer.machineId, call.state);
  holdWhileOpen(parts, held, request.socket, { machineId: peer.machineId, bootId: call.facts.bootId });
  for (const result of call.results) orders.recordResult(peer.machineId, result);
  const ready = orders.take(peer.machineId);
  if (ready.length > 0) return { orders: [...ready], unitsInFlightMax };
  await orders.waitOrder(peer.machineId, call.waitSeconds * 1000, request.signal);
  return { orders: request.signal.aborted ? [] : [...orders.take(peer.machineId)], unitsInFlightMax };
}

/** Takes note of the agent, or refuses it; a copy is told of with the addresses at which it can be found. */
function appear({ registry, onIdentity }: AgentListenerParts, { machineId, certificateDigest }: Peer, facts: MachineFacts): void {
  try {
    registry.appear(machineId, { certificateDigest, facts });
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
