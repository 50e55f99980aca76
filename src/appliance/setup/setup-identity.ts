// The certificate of the set-up page: of the site's authority, kept, so that a browser that has accepted it once sees the same one again.

import { X509Certificate } from "node:crypto";
import { hostname } from "node:os";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { ApplianceConfig } from "../config/config.ts";
import type { IssuedIdentity, SiteAuthority } from "../identity/site-authority.ts";
import type { SealedFacts } from "../state/facts.ts";

const keptShape = z.object({ names: z.array(z.string()), certPem: z.string(), keyPem: z.string() });
const leftMsMin = 30 * 86_400_000;

export interface SetupIdentityParts {
  readonly facts: SealedFacts;
  readonly authority: SiteAuthority;
  readonly config: ApplianceConfig;
  readonly clock: Clock;
}

/** The kept one while it names all addresses and does not end soon; else a new one. */
export async function openSetupIdentity({ facts, authority, config, clock }: SetupIdentityParts): Promise<IssuedIdentity> {
  const names = [...new Set([hostname(), config.name, ...config.listenAddresses])];
  const text = facts.read("setupIdentity");
  const kept = text === undefined ? undefined : keptShape.parse(JSON.parse(text));
  if (kept !== undefined && names.every((name) => kept.names.includes(name)) && endOf(kept.certPem) - clock.nowMs() > leftMsMin)
    return kept;
  const identity = await authority.issueServerIdentity(names);
  facts.write("setupIdentity", JSON.stringify({ names, ...identity }));
  return identity;
}

/** As browsers show it: pairs of hex digits with colons. undefined before the page was served once. */
export function setupFingerprint(facts: SealedFacts): string | undefined {
  const text = facts.read("setupIdentity");
  return text === undefined ? undefined : new X509Certificate(keptShape.parse(JSON.parse(text)).certPem).fingerprint256;
}

function endOf(certPem: string): number {
  return new X509Certificate(certPem).validToDate.getTime();
}

export function setupUrl(address: string, port: number): string {
  return `https://${address.includes(":") ? `[${address}]` : address}:${port}/`;
}
