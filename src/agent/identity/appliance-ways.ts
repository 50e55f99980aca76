// ApplianceWays: the addresses at which the agent's appliance may be found, tried in order; what works is used until it fails.

import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { applianceWaysMax, waysText, type ApplianceWay } from "../../contract/agent-control.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import type { AgentLog } from "../log.ts";
import { connectData, postJson, type PostOptions, type Trust } from "./appliance-client.ts";
import { givenWayShape, readState, stateFiles, type Identity } from "./state-folder.ts";

export interface ApplianceWaysOptions {
  readonly stateFolder: string;
  readonly identity: Identity;
  readonly log: AgentLog;
  /** Nothing is written meanwhile; it is made up for after the thaw. */
  readonly isFrozen: () => boolean;
  /** Replaces the file whole; for tests of kills. */
  readonly write?: (path: string, text: string) => Promise<void>;
}

/** The identity's file holds them all, the one in use first, so that one write is one change. */
export class ApplianceWays {
  readonly #options: ApplianceWaysOptions;
  #ways: readonly ApplianceWay[];
  /** As the file has them. */
  #kept: readonly ApplianceWay[];
  #toldDigest: string | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: ApplianceWaysOptions) {
    const { applianceHost: host, controlPort, dataPort, otherWays = [] } = options.identity;
    this.#options = options;
    this.#kept = [{ host, controlPort, dataPort }, ...otherWays];
    this.#ways = this.#kept;
  }

  /** The one in use. */
  get current(): ApplianceWay {
    return this.#ways[0] ?? { host: this.#options.identity.applianceHost, controlPort: 443, dataPort: 9443 };
  }

  /** Of what the appliance told last, once that is kept: by it the appliance knows whom it need not tell. */
  get toldDigest(): string | undefined {
    return this.#toldDigest;
  }

  /** Dials one way after the other until one answers. Rejects with what the first one said, or with a refusal at once. */
  async use<T>(dial: (way: ApplianceWay) => Promise<T>, signal?: AbortSignal): Promise<T> {
    let failure: unknown;
    for (const way of this.#ways) {
      try {
        const answer = await dial(way);
        await this.#prefer(way);
        return answer;
      } catch (error) {
        if (signal?.aborted === true || !isUnreached(error)) throw error;
        failure ??= error;
      }
    }
    const given = await this.#readGiven();
    if (given === undefined) throw failure;
    const answer = await dial(given);
    await this.#prefer(given);
    await rm(join(this.#options.stateFolder, stateFiles.givenWay), { force: true });
    return answer;
  }

  /** What the appliance told: behind the way in use, before those that were known. */
  async learn(told: readonly ApplianceWay[] | undefined): Promise<void> {
    const [current, ...others] = this.#ways;
    if (told !== undefined && current !== undefined) this.#ways = unique([current, ...told, ...others]);
    await this.#keep();
    if (told !== undefined && this.#kept === this.#ways) this.#toldDigest = digestOfWays(told);
  }

  /** Resolves when no write is under way. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #prefer(way: ApplianceWay): Promise<void> {
    if (way === this.#ways[0]) return;
    this.#options.log.warn("appliance found at another address", { host: way.host, before: this.current.host });
    this.#ways = unique([way, ...this.#ways]);
    await this.#keep();
  }

  /** One that cannot be written is used all the same, and written with the next call. */
  async #keep(): Promise<void> {
    const { identity, stateFolder, isFrozen, log, write = writeFileAtomic } = this.#options;
    const ways = this.#ways;
    if (JSON.stringify(ways) === JSON.stringify(this.#kept)) {
      this.#kept = ways;
      return;
    }
    const [current, ...otherWays] = ways;
    if (current === undefined || isFrozen()) return;
    const { host: applianceHost, controlPort, dataPort } = current;
    const text = JSON.stringify({ ...identity, applianceHost, controlPort, dataPort, otherWays }, undefined, 1);
    const before = this.#writing;
    const written = before.then(async () => await write(join(stateFolder, stateFiles.identity), `${text}\n`));
    this.#writing = written.catch(() => undefined); // Told below, by whoever asked for it.
    try {
      await written;
      this.#kept = ways;
    } catch (error) {
      log.warn("ways to the appliance not kept", { fault: toReport(asFault(error, "keep the ways to the appliance")) });
    }
  }

  async #readGiven(): Promise<ApplianceWay | undefined> {
    return await readState(this.#options.stateFolder, stateFiles.givenWay, givenWayShape);
  }
}

/** As postJson, by whichever way answers. */
export async function postOver<T>(ways: ApplianceWays, options: Omit<PostOptions<T>, "endpoint">): Promise<T> {
  return await ways.use(async ({ host, controlPort: port }) => await postJson({ ...options, endpoint: { host, port } }), options.signal);
}

/** As connectData, by whichever way answers. */
export async function connectOver(ways: ApplianceWays, trust: Trust, signal: AbortSignal): Promise<TLSSocket> {
  return await ways.use(async ({ host, dataPort: port }) => await connectData({ host, port }, trust, signal), signal);
}

function digestOfWays(ways: readonly ApplianceWay[]): string {
  return createHash("sha256").update(waysText(ways)).digest("hex");
}

function unique(ways: readonly ApplianceWay[]): readonly ApplianceWay[] {
  const digests = ways.map((way) => digestOfWays([way]));
  return ways.filter((_, index) => digests.indexOf(digests[index] ?? "") === index).slice(0, applianceWaysMax);
}

function isUnreached(error: unknown): boolean {
  return error instanceof Fault && error.code === "ApplianceUnreachable";
}
