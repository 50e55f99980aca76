// The machines of this site: who an agent is, which boot of it is the living one, and what it last said.

import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import {
  agentStateShape,
  machineFactsShape,
  replicationPolicyShape,
  type AgentState,
  type MachineFacts,
  type ReplicationPolicy,
} from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, type MachineId } from "../../contract/ids.ts";
import { readJson, readNumber, readOptionalText, readText, type Row, type StateDatabase } from "../state/database.ts";
import { judgeBoot } from "./judge-boot.ts";

const bootIdsMax = 16;
const bootIdsShape = z.array(z.string().max(64));

export interface Machine {
  readonly machineId: MachineId;
  readonly infrastructureId: string | undefined;
  readonly certificateDigest: string;
  /** Of the certificate in use; undefined until the machine showed it to a program that looks. */
  readonly certificateEndsAtMs: number | undefined;
  readonly bootId: string;
  readonly facts: MachineFacts;
  readonly state: AgentState | undefined;
  readonly agentVersion: string;
  readonly seenAtMs: number;
  readonly address: string | undefined;
  readonly credentialId: string | undefined;
  readonly policy: ReplicationPolicy | undefined;
  /** The order that protects the machine; undefined when it is not protected. */
  readonly protectedBy: string | undefined;
}

/** What an agent shows of itself with each call. */
export interface Appearance {
  readonly certificateDigest: string;
  readonly certificateEndsAtMs: number;
  readonly facts: MachineFacts;
}

export interface MachineRegistry {
  list(): readonly Machine[];
  find(machineId: MachineId): Machine | undefined;
  /** Throws NotFound. */
  get(machineId: MachineId): Machine;
  findByInfrastructureId(infrastructureId: string): Machine | undefined;
  findByFacts(facts: Pick<MachineFacts, "smbiosUuid" | "osMachineId">): Machine | undefined;
  /** The id under which a registering machine goes on: its own of before, or a fresh one. Throws AgentCloned for a copy. */
  identify(facts: MachineFacts): MachineId;
  /** The id under which these will be known when they register: a machine that was another appliance's. Kept until they have. */
  expect(machineId: MachineId, facts: Pick<MachineFacts, "smbiosUuid" | "osMachineId">): void;
  /** Stores the certificate that is valid for the machine from now on. */
  register(machineId: MachineId, appearance: Appearance, agentVersion: string): void;
  /** Throws AgentNotRegistered for a certificate that is not the machine's. */
  requireKnown(machineId: MachineId, certificateDigest: string): void;
  /** The certificate that becomes the machine's when it is first used; until then the present one is good. */
  offer(machineId: MachineId, certificateDigest: string): void;
  /** Takes note of a sign of life. Throws AgentNotRegistered or AgentCloned. */
  appear(machineId: MachineId, appearance: Appearance): Machine;
  /** Whether a data connection with this certificate and boot may write. Throws as `appear`. */
  admit(machineId: MachineId, certificateDigest: string, bootId: string): Machine;
  recordState(machineId: MachineId, facts: MachineFacts, state: AgentState, agentVersion: string): void;
  /** Ties the machine to what a vCenter shows, to the order that protects it and to how it was reached. */
  protect(
    machineId: MachineId,
    link: {
      readonly infrastructureId: string;
      readonly orderId: string;
      readonly policy: ReplicationPolicy;
      readonly address: string;
      readonly credentialId: string;
    },
  ): void;
  setPolicy(machineId: MachineId, policy: ReplicationPolicy): void;
  unprotect(machineId: MachineId): void;
  /** Forgets the machine, its certificate and its orders. */
  remove(machineId: MachineId): void;
  /** A connection of this boot is open: it counts as alive until the returned object is disposed. */
  holdAlive(machineId: MachineId, bootId: string): Disposable;
}

export interface RegistryParts {
  readonly database: StateDatabase;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export function createMachineRegistry(parts: RegistryParts): MachineRegistry {
  return new SqliteMachineRegistry(parts);
}

class SqliteMachineRegistry implements MachineRegistry {
  readonly #database: StateDatabase;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  /** Open connections per "machine boot". */
  readonly #alive = new Map<string, number>();
  /** Digests that a renewal replaced: data connections that were opened with them go on. */
  readonly #retired = new Map<MachineId, string>();

  constructor({ database, clock, random, log }: RegistryParts) {
    this.#database = database;
    this.#clock = clock;
    this.#random = random;
    this.#log = log;
  }

  list(): readonly Machine[] {
    return this.#database.all("SELECT * FROM machine ORDER BY id").map(toMachine);
  }

  find(machineId: MachineId): Machine | undefined {
    const row = this.#database.one("SELECT * FROM machine WHERE id = ?", machineId);
    return row === undefined ? undefined : toMachine(row);
  }

  get(machineId: MachineId): Machine {
    const machine = this.find(machineId);
    if (machine !== undefined) return machine;
    throw new Fault("NotFound", `there is no machine ${machineId} on this appliance`, { evidence: { machineId } });
  }

  findByInfrastructureId(infrastructureId: string): Machine | undefined {
    const row = this.#database.one("SELECT * FROM machine WHERE infrastructure_id = ?", infrastructureId);
    return row === undefined ? undefined : toMachine(row);
  }

  findByFacts(facts: Pick<MachineFacts, "smbiosUuid" | "osMachineId">): Machine | undefined {
    const row = this.#database.one(
      "SELECT * FROM machine WHERE smbios_uuid = ? AND os_machine_id = ?",
      facts.smbiosUuid,
      facts.osMachineId,
    );
    return row === undefined ? undefined : toMachine(row);
  }

  identify(facts: MachineFacts): MachineId {
    const known = this.findByFacts(facts);
    if (known === undefined) return this.#expected(facts) ?? parseMachineId(this.#random.uuid());
    this.#judge(known, facts.smbiosUuid, facts.bootId);
    return known.machineId;
  }

  expect(machineId: MachineId, { smbiosUuid, osMachineId }: Pick<MachineFacts, "smbiosUuid" | "osMachineId">): void {
    this.#database.run(
      `INSERT INTO expected_machine (smbios_uuid, os_machine_id, machine_id) VALUES (?, ?, ?)
       ON CONFLICT (smbios_uuid, os_machine_id) DO UPDATE SET machine_id = excluded.machine_id`,
      smbiosUuid,
      osMachineId,
      machineId,
    );
  }

  #expected({ smbiosUuid, osMachineId }: Pick<MachineFacts, "smbiosUuid" | "osMachineId">): MachineId | undefined {
    const query = "SELECT machine_id FROM expected_machine WHERE smbios_uuid = ? AND os_machine_id = ?";
    const row = this.#database.one(query, smbiosUuid, osMachineId);
    return row === undefined ? undefined : parseMachineId(readText(row, "machine_id"));
  }

  register(machineId: MachineId, { certificateDigest, certificateEndsAtMs, facts }: Appearance, agentVersion: string): void {
    this.#database.run(
      `INSERT INTO machine (id, smbios_uuid, os_machine_id, certificate_digest, certificate_ends_at_ms, boot_id, facts, agent_version, seen_at_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET certificate_digest = excluded.certificate_digest, next_certificate_digest = NULL,
         certificate_ends_at_ms = excluded.certificate_ends_at_ms, boot_id = excluded.boot_id, facts = excluded.facts, agent_version = excluded.agent_version, seen_at_ms = excluded.seen_at_ms`,
      machineId,
      facts.smbiosUuid,
      facts.osMachineId,
      certificateDigest,
      certificateEndsAtMs,
      facts.bootId,
      JSON.stringify(facts),
      agentVersion,
      this.#clock.nowMs(),
    );
    this.#retired.delete(machineId);
    this.#database.run("DELETE FROM expected_machine WHERE machine_id = ?", machineId);
    this.#log.info("agent registered", { machineId, hostname: facts.hostname });
  }

  requireKnown(machineId: MachineId, certificateDigest: string): void {
    this.#known(machineId, certificateDigest);
  }

  offer(machineId: MachineId, certificateDigest: string): void {
    this.#database.run("UPDATE machine SET next_certificate_digest = ? WHERE id = ?", certificateDigest, machineId);
  }

  appear(machineId: MachineId, { certificateDigest, certificateEndsAtMs, facts }: Appearance): Machine {
    const machine = this.#known(machineId, certificateDigest);
    this.#judge(machine, facts.smbiosUuid, facts.bootId);
    const change = "UPDATE machine SET seen_at_ms = ?, certificate_ends_at_ms = ? WHERE id = ?";
    this.#database.run(change, this.#clock.nowMs(), certificateEndsAtMs, machineId);
    return this.get(machineId);
  }

  admit(machineId: MachineId, certificateDigest: string, bootId: string): Machine {
    const isRetired = this.#retired.get(machineId) === certificateDigest;
    const machine = isRetired ? this.get(machineId) : this.#known(machineId, certificateDigest);
    this.#judge(machine, machine.facts.smbiosUuid, bootId);
    return this.get(machineId);
  }

  #known(machineId: MachineId, certificateDigest: string): Machine {
    const machine = this.find(machineId);
    if (machine !== undefined && machine.certificateDigest === certificateDigest) return machine;
    if (machine !== undefined && this.#promote(machine, certificateDigest)) return this.get(machineId);
    throw new Fault("AgentNotRegistered", "refused an agent: its certificate is not the one that this appliance knows for the machine", {
      evidence: { machineId, isMachineKnown: machine !== undefined },
    });
  }

  /** The first use of a renewed certificate makes it the machine's. */
  #promote({ machineId, certificateDigest: before }: Machine, certificateDigest: string): boolean {
    const row = this.#database.one("SELECT next_certificate_digest FROM machine WHERE id = ?", machineId) ?? {};
    if (readOptionalText(row, "next_certificate_digest") !== certificateDigest) return false;
    const change = "UPDATE machine SET certificate_digest = ?, next_certificate_digest = NULL WHERE id = ?";
    this.#database.run(change, certificateDigest, machineId);
    this.#retired.set(machineId, before);
    this.#log.info("agent's certificate renewed", { machineId });
    return true;
  }

  /** Applies judgeBoot: switches to a new boot, bans the boots of a copy, throws AgentCloned for a newcomer. */
  #judge(machine: Machine, smbiosUuid: string, bootId: string): void {
    const row = this.#database.one("SELECT past_boot_ids, banned_boot_ids FROM machine WHERE id = ?", machine.machineId) ?? {};
    const past = readJson(bootIdsShape, row, "past_boot_ids");
    const banned = readJson(bootIdsShape, row, "banned_boot_ids");
    const verdict = judgeBoot({
      known: { smbiosUuid: machine.facts.smbiosUuid, bootId: machine.bootId, pastBootIds: past, bannedBootIds: banned },
      seen: { smbiosUuid, bootId },
      isKnownBootAlive: (this.#alive.get(`${machine.machineId} ${machine.bootId}`) ?? 0) > 0,
      silentMs: this.#clock.nowMs() - machine.seenAtMs,
    });
    if (verdict.kind === "same") return;
    if (verdict.kind === "clone") {
      this.#log.warn("cloned agent refused", { machineId: machine.machineId, because: verdict.because });
      throw new Fault("AgentCloned", `refused an agent: it is a copy of the one on ${machine.facts.hostname}`, {
        evidence: { machineId: machine.machineId, because: verdict.because, bootId, smbiosUuid, originalBootId: machine.bootId },
        retry: verdict.mayPass ? "later" : "never",
      });
    }
    const nextPast = verdict.kind === "rebooted" ? [...past, machine.bootId].slice(-bootIdsMax) : past.filter((each) => each !== bootId);
    const nextBanned = verdict.kind === "returned" ? [...banned, machine.bootId].slice(-bootIdsMax) : banned;
    this.#database.run(
      "UPDATE machine SET boot_id = ?, past_boot_ids = ?, banned_boot_ids = ? WHERE id = ?",
      bootId,
      JSON.stringify(nextPast),
      JSON.stringify(nextBanned),
      machine.machineId,
    );
    this.#log.info("machine boot changed", { machineId: machine.machineId, bootId, verdict: verdict.kind });
  }

  recordState(machineId: MachineId, facts: MachineFacts, state: AgentState, agentVersion: string): void {
    this.#database.run(
      "UPDATE machine SET facts = ?, agent_state = ?, agent_version = ? WHERE id = ?",
      JSON.stringify(facts),
      JSON.stringify(state),
      agentVersion,
      machineId,
    );
  }

  protect(machineId: MachineId, link: Parameters<MachineRegistry["protect"]>[1]): void {
    this.#database.run(
      "UPDATE machine SET infrastructure_id = ?, protected_by = ?, policy = ?, address = ?, credential_id = ? WHERE id = ?",
      link.infrastructureId,
      link.orderId,
      JSON.stringify(link.policy),
      link.address,
      link.credentialId,
      machineId,
    );
  }

  setPolicy(machineId: MachineId, policy: ReplicationPolicy): void {
    this.#database.run("UPDATE machine SET policy = ? WHERE id = ?", JSON.stringify(policy), machineId);
  }

  unprotect(machineId: MachineId): void {
    this.#database.run("UPDATE machine SET protected_by = NULL, policy = NULL WHERE id = ?", machineId);
  }

  remove(machineId: MachineId): void {
    this.#retired.delete(machineId);
    this.#database.run("DELETE FROM machine WHERE id = ?", machineId);
  }

  holdAlive(machineId: MachineId, bootId: string): Disposable {
    const key = `${machineId} ${bootId}`;
    this.#alive.set(key, (this.#alive.get(key) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        const left = (this.#alive.get(key) ?? 1) - 1;
        if (left > 0) this.#alive.set(key, left);
        else this.#alive.delete(key);
      },
    };
  }
}

function toMachine(row: Row): Machine {
  return {
    machineId: parseMachineId(readText(row, "id")),
    infrastructureId: readOptionalText(row, "infrastructure_id"),
    certificateDigest: readText(row, "certificate_digest"),
    certificateEndsAtMs: row["certificate_ends_at_ms"] === null ? undefined : readNumber(row, "certificate_ends_at_ms"),
    bootId: readText(row, "boot_id"),
    facts: readJson(machineFactsShape, row, "facts"),
    state: row["agent_state"] === null ? undefined : readJson(agentStateShape, row, "agent_state"),
    agentVersion: readText(row, "agent_version"),
    seenAtMs: readNumber(row, "seen_at_ms"),
    address: readOptionalText(row, "address"),
    credentialId: readOptionalText(row, "credential_id"),
    policy: row["policy"] === null ? undefined : readJson(replicationPolicyShape, row, "policy"),
    protectedBy: readOptionalText(row, "protected_by"),
  };
}
