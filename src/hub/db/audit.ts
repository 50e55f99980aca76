// The audit trail: who asked for which write on what, and how it ended. Rows are only ever added, chained by hashes.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Kysely } from "kysely";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { chainStart, type AuditHead } from "./audit-chain.ts";
import { appendEntries } from "./audit-entries.ts";
import { openPlainConnection, type DatabaseAddress } from "./database.ts";
import type { Tables } from "./tables.ts";

export interface AuditSubject {
  readonly principalId: string;
  readonly principalName: string;
  readonly action: string;
  readonly resourceId: string;
  readonly correlationId: string;
  /** SHA-256 of the resource as readers see it, before the write; absent when there was none or it is not of one resource. */
  readonly beforeDigest?: string;
}

export interface AuditEnd {
  /** The HTTP status, or the code of the fault. */
  readonly outcome: string;
  readonly operationId?: string;
  readonly afterDigest?: string;
  /** Names of what the write changed, without values. */
  readonly changed?: readonly string[];
}

export interface AuditTrail {
  /**
   * Durable on return; a write must not begin before. An entry without an end tells of a hub that was killed.
   * `end` returns when that is durable too; it never throws, because the work is done then.
   */
  begin(subject: AuditSubject): Promise<{ end(end: AuditEnd): Promise<void> }>;
  /** A refused write: one row, durable on return. */
  deny(subject: AuditSubject): Promise<void>;
  /** What happened at once, as a sign-in: one row, durable on return. */
  note(subject: AuditSubject, outcome: string): Promise<void>;
}

export interface AuditOptions {
  readonly address: DatabaseAddress;
  /** Holds the last row that this hub wrote, outside the database, so that rows cannot vanish from the chain's end. */
  readonly headFile: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

interface Waiting {
  readonly entry: object;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const batchEntriesMax = 256;
const waitingMax = 10_000;
/** The head file may lag by this much; while the hub runs it knows better than the file. */
const headEveryMs = 250;
const headShape = z.strictObject({ sequence: z.number().int().min(0), hash: z.string().length(64) });

export function auditHeadFile(stateDir: string): string {
  return join(stateDir, "audit-head.json");
}

/** Undefined when there is no such file yet. */
export async function readAuditHead(path: string): Promise<AuditHead | undefined> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  return text === undefined ? undefined : headShape.parse(JSON.parse(text));
}

export function openAuditTrail(options: AuditOptions): AuditTrail & AsyncDisposable {
  const { clock, random, log } = options;
  const writer = new AuditWriter(options);
  const subjectOf = (kind: string, entryId: string, subject: AuditSubject): object => {
    return { kind, entryId, at: toTimestamp(clock.nowMs()), ...subject };
  };
  return {
    begin: async (subject) => {
      const entryId = random.uuid();
      await writer.append(subjectOf("begin", entryId, subject));
      return {
        end: async (end) => {
          const entry = { ...subjectOf("end", entryId, subject), ...end };
          await writer
            .append(entry)
            .catch(async () => await writer.append(entry))
            .catch((error: unknown) => {
              log.error("audit end not written", { ...subject, outcome: end.outcome, reason: String(error) });
            });
        },
      };
    },
    note: async (subject, outcome) => await writer.append({ ...subjectOf("note", random.uuid(), subject), outcome }),
    deny: async (subject) => await writer.append({ ...subjectOf("denied", random.uuid(), subject), outcome: "denied" }),
    [Symbol.asyncDispose]: async () => await writer.close(),
  };
}

/** One writer a hub, on a connection of its own: callers that hold a connection of the pool never wait for a second one here. */
class AuditWriter {
  readonly #options: AuditOptions;
  readonly #connection: AsyncDisposable & { readonly db: Kysely<Tables> };
  readonly #waiting: Waiting[] = [];
  readonly #closing = new AbortController();
  #known: AuditHead | undefined;
  #state: "new" | "whole" | "cut" = "new";
  #saved: AuditHead | undefined;
  #draining: Promise<void> | undefined;
  #saving: Promise<void> | undefined;

  constructor(options: AuditOptions) {
    this.#options = options;
    this.#connection = openPlainConnection(options.address, options.log);
  }

  async append(entry: object): Promise<void> {
    if (this.#waiting.length >= waitingMax || this.#closing.signal.aborted)
      throw new Fault("DatabaseUnavailable", "could not write the audit trail: too many entries wait for the database");
    await new Promise<void>((resolve, reject) => {
      this.#waiting.push({ entry, resolve, reject });
      this.#draining ??= this.#drain();
    });
  }

  /** Entries that wait are written first. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#draining;
    await this.#saving;
    await this.#connection[Symbol.asyncDispose]();
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, batchEntriesMax);
      try {
        await this.#write(batch.map(({ entry }) => entry));
        for (const { resolve } of batch) resolve();
      } catch (error) {
        const fault = error instanceof Fault ? error : toFault(error);
        for (const { reject } of batch) reject(fault);
      }
    }
    this.#draining = undefined;
  }

  async #write(entries: readonly object[]): Promise<void> {
    const { headFile, log } = this.#options;
    if (this.#state === "new") {
      this.#known = await readAuditHead(headFile);
      this.#state = "whole";
    }
    const { head, kind } = await appendEntries(this.#connection.db, this.#known, entries);
    if (kind === "cut") {
      this.#state = "cut";
      log.error("audit trail was changed in the database", { sequence: this.#known?.sequence, nextSequence: head.sequence });
    }
    this.#known = head;
    this.#saving ??= this.#save();
  }

  /** After a cut the file stays as it is: it is what proves the cut. */
  async #save(): Promise<void> {
    const { headFile, clock, log } = this.#options;
    while (this.#state === "whole" && this.#known !== this.#saved) {
      const { sequence, hash } = this.#known ?? chainStart;
      this.#saved = this.#known;
      await writeFileAtomic(headFile, JSON.stringify({ sequence, hash }), { mode: 0o600 }).catch((error: unknown) =>
        log.error("audit head not written", { reason: String(error) }),
      );
      await clock.sleep(headEveryMs, this.#closing.signal).catch(() => undefined); // Only closing aborts; then the rest is written at once.
    }
    this.#saving = undefined;
  }
}

function toFault(cause: unknown): Fault {
  return new Fault("DatabaseUnavailable", "could not write the audit trail", { cause, action: "call again; nothing was done" });
}
