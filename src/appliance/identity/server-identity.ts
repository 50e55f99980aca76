// The certificate that both agent ports show: issued at each start, and anew while the program runs, so that none outlives its date.

import { createSecureContext, type SecureContext } from "node:tls";
import { X509Certificate } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import { Semaphore } from "../../base/semaphore.ts";
import type { IssuedIdentity, SiteAuthority } from "./site-authority.ts";
import { isServerRenewalDue } from "./site-certificates.ts";

export class ServerIdentity {
  readonly #authority: SiteAuthority;
  readonly #addresses: readonly string[];
  readonly #clock: Clock;
  readonly #turn = new Semaphore(1);
  #issued: IssuedIdentity;
  #context: SecureContext;

  private constructor(options: Parameters<typeof ServerIdentity.open>[0], issued: IssuedIdentity) {
    this.#authority = options.authority;
    this.#addresses = [...new Set(options.addresses)];
    this.#clock = options.clock;
    this.#issued = issued;
    this.#context = this.#toContext(issued);
  }

  static async open(options: {
    readonly authority: SiteAuthority;
    readonly addresses: readonly string[];
    readonly clock: Clock;
  }): Promise<ServerIdentity> {
    return new ServerIdentity(options, await options.authority.issueServerIdentity([...new Set(options.addresses)]));
  }

  /** For clients that name no server. */
  get issued(): IssuedIdentity {
    return this.#issued;
  }

  /** For a handshake that begins now. */
  async context(): Promise<SecureContext> {
    if (this.#isDue())
      await this.#turn.run(async () => {
        if (!this.#isDue()) return;
        this.#issued = await this.#authority.issueServerIdentity(this.#addresses);
        this.#context = this.#toContext(this.#issued);
      });
    return this.#context;
  }

  #isDue(): boolean {
    const endsAtMs = new X509Certificate(this.#issued.certPem).validToDate.getTime();
    return isServerRenewalDue(endsAtMs, { nowMs: this.#clock.nowMs(), authorityEndsAtMs: this.#authority.endsAtMs });
  }

  /** The client's certificate is judged by these settings, not by those of the server. */
  #toContext({ certPem, keyPem }: IssuedIdentity): SecureContext {
    return createSecureContext({ cert: certPem, key: keyPem, ca: this.#authority.caPem, minVersion: "TLSv1.3" });
  }
}
