// Who calls an appliance route: the client certificate of the TLS connection, bound to the vault of the name that was called.

import type { X509Certificate } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { TLSSocket } from "node:tls";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import type { Appliance, ApplianceCatalogue } from "../db/appliances.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { digestOf } from "../pki/authority.ts";

/** Fault Unauthorized without a certificate of the hub; Forbidden with one of another vault or of a removed appliance. */
export async function requireAppliance(appliances: ApplianceCatalogue, request: IncomingMessage, vault: ResourceId): Promise<Appliance> {
  const { socket } = request;
  const certificate = socket instanceof TLSSocket && socket.authorized ? socket.getPeerX509Certificate() : undefined;
  if (certificate === undefined)
    throw new Fault("Unauthorized", "could not accept the call: the appliance showed no certificate of this hub", {
      causes: ["the appliance is not registered", "its certificate has expired or is of another hub"],
      action: "register the appliance with a registration key of the vault",
    });
  const applianceId = commonNameOf(certificate.subject);
  const appliance = applianceId === undefined ? undefined : await findAppliance(appliances, applianceId);
  if (appliance !== undefined && appliance.vaultKey === vault.key) {
    const digest = digestOf(certificate.raw);
    if (appliance.certificateDigest === digest) return appliance;
    if (appliance.nextCertificateDigest === digest) {
      await appliances.useCertificate(appliance.applianceId, { digest, endsAt: endOf(certificate) });
      return appliance;
    }
  }
  throw new Fault("Forbidden", "could not accept the call: the appliance is not registered in this vault", {
    evidence: { applianceId: applianceId ?? "none", vault: vault.text },
    causes: [
      "the appliance is registered in another vault",
      "the appliance was removed",
      "its certificate was renewed and an old one shown",
    ],
    action: "register the appliance with a registration key of this vault",
  });
}

export function endOf(certificate: X509Certificate): string {
  return toTimestamp(certificate.validToDate.getTime());
}

async function findAppliance(appliances: ApplianceCatalogue, text: string): Promise<Appliance | undefined> {
  const isId = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
  return isId ? await appliances.find(parseApplianceId(text)) : undefined;
}

function commonNameOf(subject: string): string | undefined {
  return /(?:^|\n)CN=([^\n]*)/.exec(subject)?.[1];
}
