// The certificate by which the hub knows this appliance: used for each call, renewed by order and before it ends. A kill leaves one that works.

import { createPrivateKey, X509Certificate } from "node:crypto";
import { z } from "zod";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { certificateResponseShape, storageGrantShape, type StorageGrant } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { Connector } from "../../connectivity/connector.ts";
import { createHubClient, type HubClient } from "../hub/hub-client.ts";
import type { SealedFacts } from "../state/facts.ts";
import { writeRegistration, type HubRegistration } from "./hub-registration.ts";
import { createSigningRequest } from "./site-authority.ts";

export interface HubIdentityParts {
  readonly registration: HubRegistration;
  readonly facts: SealedFacts;
  readonly hubPort: number;
  /** The way to the hub with a certificate. */
  readonly connect: (pair: { readonly certPem: string; readonly keyPem: string }) => Connector;
  readonly onGrant: (grant: StorageGrant) => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** Renewed when less than this share of its life is left: for one of a year three months, before any warning of the hub. */
const lifeShareLeftMin = 0.25;
const draftShape = z.object({ csrPem: z.string(), keyPem: z.string() });

/**
 * A renewed certificate is kept before it is used, and the one before until the hub has accepted the new one: the hub takes either until
 * then. A hub that does not know the new one any more (it was restored from a backup) gets the one before again.
 */
export class HubIdentity implements AsyncDisposable {
  readonly client: HubClient;
  readonly #parts: HubIdentityParts;
  readonly #turn = new Semaphore(1);
  #registration: HubRegistration;
  #connector: Connector;
  /** Calls of before a renewal end on it. */
  #retired: Connector | undefined;

  constructor(parts: HubIdentityParts) {
    this.#parts = parts;
    this.#registration = parts.registration;
    this.#connector = this.#connect();
    const { services } = parts.registration.key;
    const inner = createHubClient({ services, port: parts.hubPort, dispatcher: () => this.#connector.dispatcher });
    this.client = {
      call: async (route, body, shape, signal) => {
        const used = this.#registration.certPem;
        try {
          const answer = await inner.call(route, body, shape, signal);
          this.#accepted(used);
          return answer;
        } catch (error) {
          if (error instanceof Fault && (error.code === "Forbidden" || error.code === "Unauthorized")) await this.#refused(used);
          throw error;
        }
      },
    };
  }

  get endsAtMs(): number {
    return new X509Certificate(this.#registration.certPem).validToDate.getTime();
  }

  /** Resolves once the new certificate was used; until then the one before is kept. */
  async renew(signal?: AbortSignal): Promise<{ readonly certificateEndsAt: string }> {
    return await this.#turn.run(async () => {
      if (this.#registration.previous === undefined) await this.#exchange(signal);
      // Any call would do as the first use; this one changes nothing but the grant, which is as good as the one before.
      this.#parts.onGrant(await this.client.call("storageGrant", {}, storageGrantShape, signal));
      const certificateEndsAt = toTimestamp(this.endsAtMs);
      this.#parts.log.info("certificate renewed", { certificateEndsAt });
      return { certificateEndsAt };
    });
  }

  async renewWhenDue(signal?: AbortSignal): Promise<void> {
    const { validFromDate, validToDate } = new X509Certificate(this.#registration.certPem);
    const leftMs = validToDate.getTime() - this.#parts.clock.nowMs();
    if (leftMs < lifeShareLeftMin * (validToDate.getTime() - validFromDate.getTime())) await this.renew(signal);
  }

  async #exchange(signal?: AbortSignal): Promise<void> {
    const { facts } = this.#parts;
    const { certPem, privateKeyPem } = this.#registration;
    const draft = await this.#draft();
    const { certificatePem, caPem } = await this.client.call("certificate", { csrPem: draft.csrPem }, certificateResponseShape, signal);
    if (!new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(draft.keyPem)))
      throw new Fault("Internal", "the hub's new certificate is not for the key that was asked with");
    const previous = { certPem, privateKeyPem };
    // Authorities that the hub was given since are trusted from the next start on.
    await this.#switch({ ...this.#registration, certPem: certificatePem, privateKeyPem: draft.keyPem, hubCaPem: caPem, previous });
    facts.remove("hubIdentityDraft");
  }

  /** The same key after a kill: whatever the hub had signed for it fits. */
  async #draft(): Promise<z.infer<typeof draftShape>> {
    const { facts } = this.#parts;
    const text = facts.read("hubIdentityDraft");
    if (text !== undefined) return draftShape.parse(JSON.parse(text));
    const draft = await createSigningRequest(this.#registration.name);
    facts.write("hubIdentityDraft", JSON.stringify(draft));
    return draft;
  }

  #accepted(certPem: string): void {
    const { previous, ...rest } = this.#registration;
    if (previous === undefined || rest.certPem !== certPem) return;
    writeRegistration(this.#parts.facts, rest);
    this.#registration = rest;
  }

  async #refused(certPem: string): Promise<void> {
    const { previous, ...rest } = this.#registration;
    if (previous === undefined || rest.certPem !== certPem) return;
    this.#parts.log.warn("renewed certificate refused; the one before is used again", {});
    await this.#switch({ ...rest, ...previous });
  }

  /** Kept first: a kill after this line finds what the next call would use. */
  async #switch(registration: HubRegistration): Promise<void> {
    writeRegistration(this.#parts.facts, registration);
    this.#registration = registration;
    const earlier = this.#retired;
    this.#retired = this.#connector;
    this.#connector = this.#connect();
    await earlier?.[Symbol.asyncDispose]();
  }

  #connect(): Connector {
    const { certPem, privateKeyPem: keyPem } = this.#registration;
    return this.#parts.connect({ certPem, keyPem });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#retired?.[Symbol.asyncDispose]();
    await this.#connector[Symbol.asyncDispose]();
  }
}
