// When the site's certificates are to be renewed, and which of them end soon: decided from values, by the appliance's clock alone.

import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";

const dayMs = 86_400_000;
export const agentCertificateDays = 1095;
export const serverCertificateDays = 730;
/** A renewal that wins less than this changes nothing: the authority itself ends then. */
const gainMsMin = dayMs;
/** A renewal by itself comes long before; what is this near did not come. */
const warnMs = 60 * dayMs;
const namedMax = 20;

/** An agent's certificate, as far as it is judged here. */
export interface SeenCertificate {
  readonly certificateDigest: string;
  readonly certificateEndsAtMs: number;
}

/** When a certificate that is issued now ends: never after the authority that signs it. */
export function certificateEnd(nowMs: number, of: { readonly days: number; readonly authorityEndsAtMs: number }): number {
  return Math.min(nowMs + of.days * dayMs, of.authorityEndsAtMs);
}

/** Whether less than a third of its days is left to the certificate of the agents' ports, and another would last longer. */
export function isServerRenewalDue(endsAtMs: number, now: { readonly nowMs: number; readonly authorityEndsAtMs: number }): boolean {
  const fresh = certificateEnd(now.nowMs, { days: serverCertificateDays, authorityEndsAtMs: now.authorityEndsAtMs });
  return endsAtMs - now.nowMs < (serverCertificateDays * dayMs) / 3 && fresh - endsAtMs > gainMsMin;
}

/** After two thirds of its life and up to a twelfth more, by its digest: agents of one day do not all come on one day. */
export function isRenewalDue(
  { certificateDigest, certificateEndsAtMs }: SeenCertificate,
  { nowMs, authorityEndsAtMs }: { readonly nowMs: number; readonly authorityEndsAtMs: number },
): boolean {
  const jitter = Number.parseInt(certificateDigest.slice(0, 4), 16) / 0xffff / 12;
  const leftMs = certificateEndsAtMs - nowMs;
  const wouldGainMs = certificateEnd(nowMs, { days: agentCertificateDays, authorityEndsAtMs }) - certificateEndsAtMs;
  return leftMs < (1 / 3 - jitter) * agentCertificateDays * dayMs && wouldGainMs > gainMsMin;
}

/** What an operator must know of: agents that did not renew (silent, or too old to), and the end of the authority. */
export function findEndingCertificates(site: {
  readonly nowMs: number;
  readonly authorityEndsAtMs: number;
  readonly machines: readonly {
    readonly machineId: MachineId;
    readonly certificateEndsAtMs: number | undefined;
    readonly facts: { readonly hostname: string };
  }[];
}): Fault | undefined {
  const { nowMs, authorityEndsAtMs } = site;
  const daysTo = (endsAtMs: number): number => Math.floor((endsAtMs - nowMs) / dayMs);
  if (authorityEndsAtMs - nowMs < warnMs)
    return new Fault("CertificateEnding", `the site's certificate authority ends in ${daysTo(authorityEndsAtMs)} days`, {
      evidence: { daysLeft: daysTo(authorityEndsAtMs) },
      action: "set this appliance up anew beside the present one and move its machines there",
    });
  const ending = site.machines.flatMap(({ machineId, certificateEndsAtMs, facts }) =>
    certificateEndsAtMs === undefined || certificateEndsAtMs - nowMs >= warnMs
      ? []
      : [{ machineId, hostname: facts.hostname, daysLeft: daysTo(certificateEndsAtMs) }],
  );
  const soonest = ending.toSorted((one, other) => one.daysLeft - other.daysLeft);
  const [first] = soonest;
  if (first === undefined) return undefined;
  const when = first.daysLeft < 0 ? "has ended" : `ends in ${first.daysLeft} days`;
  const others = ending.length === 1 ? "" : `, and those of ${ending.length - 1} others end soon`;
  return new Fault("CertificateEnding", `the certificate of the agent on ${first.hostname} ${when}${others}`, {
    evidence: { agents: soonest.slice(0, namedMax).map((each) => `${each.hostname} ${each.machineId}: ${each.daysLeft} days`) },
  });
}
