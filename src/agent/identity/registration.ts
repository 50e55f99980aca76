// Registers the machine with its appliance, loads its identity, and tells a copy from the original.

import { createHmac, createPrivateKey, X509Certificate } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { agentProtocolVersion, agentRoutes, registerResponseShape, type MachineFacts } from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import { agentVersion } from "../version.ts";
import { AgentCertificate } from "./agent-certificate.ts";
import { postJson, type Endpoint, type Trust } from "./appliance-client.ts";
import { createKeyAndRequest } from "./key-request.ts";
import { identityShape, readState, stateFiles, writeState, type Identity } from "./state-folder.ts";

export interface RegistrationOptions {
  readonly stateFolder: string;
  readonly appliance: Endpoint;
  readonly authorityPem: string;
  /** Removed once the registration is stored. */
  readonly passphraseFile: string;
  readonly facts: MachineFacts;
}

/** Makes a key pair, has it certified, stores everything durably, then removes the passphrase file. May be called again. */
export async function registerAgent(options: RegistrationOptions): Promise<Identity> {
  const passphrase = (await readFile(options.passphraseFile, "utf8")).trim();
  if (passphrase === "")
    throw new Fault("InputInvalid", "could not register: the passphrase file is empty", { evidence: { path: options.passphraseFile } });
  const { csrPem, keyPem } = await createKeyAndRequest(options.facts.hostname);
  const response = await postJson({
    endpoint: options.appliance,
    trust: { authorityPem: options.authorityPem },
    path: agentRoutes.register,
    body: {
      protocolVersion: agentProtocolVersion,
      agentVersion,
      csrPem,
      proof: createHmac("sha256", passphrase).update(csrPem, "utf8").digest("hex"),
      facts: options.facts,
    },
    shape: registerResponseShape,
    timeoutMs: 60_000,
  });
  if (!new X509Certificate(response.certificatePem).checkPrivateKey(createPrivateKey(keyPem)))
    throw new Fault("AgentProtocolBroken", "the appliance certified another key than the agent's");
  const identity: Identity = {
    machineId: response.machineId,
    applianceHost: options.appliance.host,
    controlPort: options.appliance.port,
    dataPort: response.dataPort,
    smbiosUuid: options.facts.smbiosUuid,
    osMachineId: options.facts.osMachineId,
  };
  await mkdir(options.stateFolder, { recursive: true, mode: 0o700 });
  const write = (name: string, text: string): Promise<void> => writeFileAtomic(join(options.stateFolder, name), text);
  await write(stateFiles.key, keyPem);
  await write(stateFiles.certificate, response.certificatePem);
  await write(stateFiles.authority, response.caPem);
  await writeState(options.stateFolder, stateFiles.identity, identity); // Last: an identity is there when all of it is.
  await rm(options.passphraseFile, { force: true });
  return identity;
}

export interface LoadedIdentity {
  readonly identity: Identity;
  /** Shows the newest certificate, whenever it is asked. */
  readonly trust: Trust;
  readonly certificate: AgentCertificate;
}

/** Throws Fault AgentNotRegistered when there is none. */
export async function loadIdentity(stateFolder: string): Promise<LoadedIdentity> {
  const identity = await readState(stateFolder, stateFiles.identity, identityShape);
  if (identity === undefined)
    throw new Fault("AgentNotRegistered", "could not start: the agent is not registered with an appliance", { evidence: { stateFolder } });
  const read = (name: string): Promise<string> => readFile(join(stateFolder, name), "utf8");
  const [authorityPem, keyPem, certificatePem] = await Promise.all([
    read(stateFiles.authority),
    read(stateFiles.key),
    read(stateFiles.certificate),
  ]);
  const certificate = await AgentCertificate.open({ stateFolder, registered: { keyPem, certificatePem } });
  const trust: Trust = {
    authorityPem,
    get client() {
      return certificate.client;
    },
  };
  return { identity, trust, certificate };
}

/** A copy of a machine must not speak in the original's name: it would overwrite the original's replica. */
export function requireOriginal(identity: Identity, facts: Pick<MachineFacts, "smbiosUuid" | "osMachineId">): void {
  const isHardwareKnown = identity.smbiosUuid !== "" && facts.smbiosUuid !== "";
  const isSame = isHardwareKnown ? identity.smbiosUuid === facts.smbiosUuid : identity.osMachineId === facts.osMachineId;
  if (isSame) return;
  throw new Fault("AgentCloned", "the agent does not send anything: this machine is not the one that was registered", {
    evidence: {
      registeredUuid: identity.smbiosUuid,
      presentUuid: facts.smbiosUuid,
      registeredMachineId: identity.osMachineId,
      presentMachineId: facts.osMachineId,
    },
  });
}
