// The agent's certificate through its renewals: the one before stays good until the next was used, and a kill leaves one that works.

import { createPrivateKey, X509Certificate } from "node:crypto";
import { join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Log } from "../../base/log.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import { createKeyAndRequest } from "./key-request.ts";
import { readState, renewalShape, stateFiles, type KeyedCertificate, type Renewal } from "./state-folder.ts";

export interface AgentCertificateOptions {
  readonly stateFolder: string;
  /** As the registration stored it. */
  readonly registered: KeyedCertificate;
  /** Replaces the file whole; for tests of kills. */
  readonly write?: (path: string, text: string) => Promise<void>;
}

/** Each change is one write of one file, done before what it says is used. */
export class AgentCertificate {
  readonly #options: AgentCertificateOptions;
  readonly #turn = new Semaphore(1);
  #state: Renewal;

  private constructor(options: AgentCertificateOptions, state: Renewal) {
    this.#options = options;
    this.#state = state;
  }

  static async open(options: AgentCertificateOptions): Promise<AgentCertificate> {
    const registered = new X509Certificate(options.registered.certificatePem).fingerprint256.replaceAll(":", "").toLowerCase();
    const kept = await readState(options.stateFolder, stateFiles.renewal, renewalShape);
    // Of a registration before this one: that machine's name is no longer good.
    return new AgentCertificate(options, kept?.registered === registered ? kept : { registered });
  }

  get client(): KeyedCertificate {
    return this.#state.newest ?? this.#options.registered;
  }

  /** Nothing while a renewed one waits for its first use. */
  async renew(options: { readonly name: string; readonly ask: (csrPem: string) => Promise<string> }): Promise<void> {
    await this.#turn.run(async () => {
      if (this.#state.before !== undefined) return;
      // The same key after a kill: whatever the appliance had signed for it fits.
      const draft = this.#state.draft ?? (await createKeyAndRequest(options.name));
      if (this.#state.draft === undefined) await this.#keep({ ...this.#state, draft });
      const certificatePem = await options.ask(draft.csrPem);
      requireFit({ keyPem: draft.keyPem, certificatePem }, this.client);
      const { draft: _used, ...rest } = this.#state;
      await this.#keep({ ...rest, newest: { keyPem: draft.keyPem, certificatePem }, before: this.client });
    });
  }

  /** The appliance answered a call that was made with it. */
  async accepted(used: KeyedCertificate): Promise<void> {
    if (this.#state.before === undefined || used !== this.#state.newest) return;
    await this.#turn.run(async () => {
      const { before: _dropped, ...rest } = this.#state;
      if (used === rest.newest) await this.#keep(rest);
    });
  }

  /** The appliance does not know it (its state was restored, say): the one before is used again. */
  async refused(used: KeyedCertificate): Promise<"gone back" | "nothing before"> {
    return await this.#turn.run(async () => {
      const { before, newest, ...rest } = this.#state;
      if (before === undefined || used !== newest) return "nothing before";
      await this.#keep({ ...rest, newest: before });
      return "gone back";
    });
  }

  async #keep(state: Renewal): Promise<void> {
    const path = join(this.#options.stateFolder, stateFiles.renewal);
    await (this.#options.write ?? writeFileAtomic)(path, `${JSON.stringify(state, undefined, 1)}\n`);
    this.#state = state;
  }
}

/** What comes after a call, beside the loop that called: a frozen filesystem lets no file be written, and must not hold up its own thaw. */
export class CertificateKeeper {
  readonly #certificate: AgentCertificate;
  readonly #log: Log;
  readonly #renew: (abort: AbortSignal) => Promise<void>;
  readonly #isFrozen: () => boolean;
  #isBusy = false;
  #following: Promise<void> = Promise.resolve();

  constructor(parts: {
    readonly certificate: AgentCertificate;
    readonly name: string;
    readonly ask: (csrPem: string, abort: AbortSignal) => Promise<string>;
    readonly isFrozen: () => boolean;
    readonly log: Log;
  }) {
    const { certificate, name, ask } = parts;
    this.#certificate = certificate;
    this.#log = parts.log;
    this.#isFrozen = parts.isFrozen;
    this.#renew = async (abort) => await certificate.renew({ name, ask: async (csrPem) => await ask(csrPem, abort) });
  }

  /** Makes a call with the present certificate, and learns from how it went. */
  async use<T extends { readonly isRenewalDue?: boolean | undefined }>(call: () => Promise<T>, abort: AbortSignal): Promise<T> {
    const used = this.#certificate.client;
    try {
      const answer = await call();
      this.#follow(async () => {
        await this.#certificate.accepted(used);
        if (answer.isRenewalDue !== true) return;
        await this.#renew(abort);
        this.#log.info("certificate renewed");
      });
      return answer;
    } catch (error) {
      if (error instanceof Fault && (error.code === "AgentNotRegistered" || error.code === "Unauthorized"))
        this.#follow(async () => {
          if ((await this.#certificate.refused(used)) === "gone back")
            this.#log.warn("renewed certificate refused; the one before is used again");
        });
      throw error;
    }
  }

  /** Resolves when no renewal is under way. */
  async settled(): Promise<void> {
    await this.#following;
  }

  #follow(task: () => Promise<void>): void {
    if (this.#isBusy || this.#isFrozen()) return; // The next call comes by here again.
    this.#following = this.#run(task);
  }

  async #run(task: () => Promise<void>): Promise<void> {
    this.#isBusy = true;
    try {
      await task();
    } catch (error) {
      this.#log.warn("certificate not renewed", { fault: toReport(asFault(error, "renew the agent's certificate")) });
    } finally {
      this.#isBusy = false;
    }
  }
}

function requireFit({ keyPem, certificatePem }: KeyedCertificate, present: KeyedCertificate): void {
  const [next, before] = [new X509Certificate(certificatePem), new X509Certificate(present.certificatePem)];
  if (!next.checkPrivateKey(createPrivateKey(keyPem)))
    throw new Fault("AgentProtocolBroken", "the appliance certified another key than the agent's");
  if (next.subject !== before.subject) throw new Fault("AgentProtocolBroken", "the appliance certified another machine than this one");
}
