// Registration of an appliance: a key that works once against a certificate, the vault's key and a storage grant.

import { createHmac, timingSafeEqual, X509Certificate } from "node:crypto";
import type { z } from "zod";
import {
  applianceRegisterRequestShape,
  applianceRegisterResponseShape,
  type certificateResponseShape,
  type ApplianceRegisterResponse,
  type SentVaultKeys,
} from "../../contract/appliance-protocol.ts";
import { requireProtocolVersion } from "../../contract/appliance-versions.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId, type ApplianceId } from "../../contract/ids.ts";
import { parseInput } from "../api/arm-errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { NewEvent } from "../db/events.ts";
import type { Authority, ClientCertificate } from "../pki/authority.ts";
import { endOf } from "./appliance-caller.ts";
import type { ApplianceFaceDependencies } from "./appliance-face.ts";
import { toSentKeys } from "../resources/vault-keys.ts";
import { grantStorage } from "./storage-grant.ts";

/** What can fail for other reasons comes first; the key is used up last, together with the appliance's row. */
export async function registerAppliance(
  dependencies: ApplianceFaceDependencies,
  vault: ResourceId,
  body: unknown,
  signal: AbortSignal,
): Promise<ApplianceRegisterResponse> {
  const { keys, appliances, events, authority, random, log } = dependencies;
  const request = parseInput(applianceRegisterRequestShape, body, "the registration");
  requireProtocolVersion(request.protocolVersion, "register the appliance");
  const applianceId = parseApplianceId(random.uuid());
  const isProved = (secret: Uint8Array): boolean => {
    const expected = createHmac("sha256", Buffer.from(secret)).update(request.csrPem, "utf8").digest();
    return timingSafeEqual(expected, Buffer.from(request.proof, "hex"));
  };
  await keys.check({ keyId: request.keyId, vaultId: vault.text, isProved });
  const { grant, place } = await grantStorage(dependencies, vault.text, signal);
  const vaultKeys = toSentKeys(place.key.keys);
  const { key } = requireCurrent(vaultKeys, request.protocolVersion);
  const certificate = await issue(authority, { applianceId, vaultId: place.vaultId, csrPem: request.csrPem });
  await appliances.add({
    applianceId,
    vaultKey: vault.key,
    name: request.name,
    version: request.applianceVersion,
    certificateDigest: certificate.digest,
    certificateEndsAt: endOf(new X509Certificate(certificate.certificatePem)),
    usingKey: async (transaction) => {
      await keys.use({ keyId: request.keyId, vaultId: vault.text, applianceId, isProved, transaction });
      await events.record(registeredEvent(vault, { applianceId, name: request.name }), transaction);
    },
  });
  log.info("appliance registered", { applianceId, name: request.name, vault: vault.text });
  return applianceRegisterResponseShape.parse({
    applianceId,
    certificatePem: certificate.certificatePem,
    caPem: authority.trustPem,
    vault: { vaultId: place.vaultId, keyId: place.key.keyId, key, keys: vaultKeys },
    storage: grant,
  });
}

const generationsSince = 4;

/** An appliance that knows one key alone would seal with it as generation 1. */
function requireCurrent({ current, keys }: SentVaultKeys, protocolVersion: number): SentVaultKeys["keys"][number] {
  const found = keys.find(({ generation }) => generation === current);
  if (found === undefined) throw new Error("assertion failed: the current generation has its key");
  if (protocolVersion >= generationsSince || (keys.length === 1 && current === 1)) return found;
  throw new Fault(
    "ProtocolVersionUnsupported",
    "could not register the appliance: the vault's key was changed, and it knows one key alone",
    {
      evidence: { applianceVersion: protocolVersion, knownSince: generationsSince },
      action: "update the appliance, then register it",
    },
  );
}

/** A certificate for another key of the same appliance. The present one holds until the new one is used. */
export async function renewCertificate(
  { vaults, appliances, authority, log }: ApplianceFaceDependencies,
  vault: ResourceId,
  caller: Appliance,
  csrPem: string,
): Promise<z.infer<typeof certificateResponseShape>> {
  const { vaultId } = await vaults.open(vault.text);
  const { applianceId } = caller;
  const certificate = await issue(authority, { applianceId, vaultId, csrPem });
  await appliances.offerCertificate(applianceId, certificate.digest);
  log.info("certificate of an appliance offered", { applianceId, name: caller.name });
  return { certificatePem: certificate.certificatePem, caPem: authority.trustPem };
}

async function issue(
  authority: Authority,
  { applianceId, vaultId, csrPem }: { readonly applianceId: ApplianceId; readonly vaultId: string; readonly csrPem: string },
): Promise<ClientCertificate> {
  const uri = `urn:watari:vault:${vaultId}:appliance:${applianceId}`;
  return await authority.clientCertificate({ csrPem, commonName: applianceId, uri });
}

function registeredEvent(vault: ResourceId, { applianceId, name }: { readonly applianceId: ApplianceId; readonly name: string }): NewEvent {
  const fabric = `${vault.text}/replicationFabrics/${applianceId}`;
  return {
    vaultKey: vault.key,
    dedupKey: `registered:${applianceId}`,
    code: "ApplianceRegistered",
    kind: "ServerHealth",
    severity: "Info",
    description: `the appliance ${name} has registered`,
    affected: { id: fabric, name },
    fabricId: fabric,
    component: "Appliance",
  };
}
