// Brings a move's hub and appliance up, each step safe to repeat: what is there already is left as it is.

import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { request, Agent } from "undici";
import { stringify } from "yaml";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { Fault, type FaultCode } from "../../contract/errors.ts";
import { adminSocketName } from "../../contract/appliance-admin.ts";
import { operatorFileShape, parseJson } from "../profile.ts";
import { openSession, type Session } from "../session.ts";
import { vaultPath } from "../vault.ts";
import { hostEntries, hubAddressOf, hubConfigOf, hubNames, hubRangeOf } from "./hub-settings.ts";
import type { Login } from "./login.ts";
import { callAppliance, callWatari, findProgram, isListening, startProgram, stopProgram } from "./programs.ts";
import { writeRecord, type MoveRecord, type Site } from "./site.ts";
import type { MoveWish } from "./wish.ts";

const credentialName = "source";
const healthMsMax = 5_000;

/** Starts the hub, or starts it anew when its settings changed. */
export async function startHub(site: Site, record: MoveRecord): Promise<void> {
  const text = stringify(hubConfigOf(site, record));
  const before = await readFile(site.hubConfig, "utf8").catch(() => undefined); // Absent before the first call.
  if (before !== undefined && before !== text) await stopProgram(site, "hub");
  if (before !== text) await writeFileAtomic(site.hubConfig, text);
  const isReady = async (): Promise<boolean> => await isHubHealthy(site, record);
  await startProgram(site, { name: "hub", args: ["hub", "run", "--config", site.hubConfig], isReady });
}

async function isHubHealthy(site: Site, record: MoveRecord): Promise<boolean> {
  const file = join(site.hubState, "operator.json");
  const text = await readFile(file, "utf8").catch(() => undefined); // The hub writes it at the end of its first start.
  if (text === undefined) return false;
  const { managementUrl, caPem } = parseJson(text, operatorFileShape, file);
  const servername = new URL(managementUrl).hostname;
  const url = `https://${hubAddressOf(record)}:${record.hubPort}/health`;
  const dispatcher = new Agent({ connect: { ca: caPem, servername } });
  try {
    const options = { dispatcher, headers: { host: servername }, headersTimeout: healthMsMax, bodyTimeout: healthMsMax };
    const response = await request(url, options);
    await response.body.dump();
    return response.statusCode === 200;
  } catch {
    return false; // Not there yet; startProgram limits the wait.
  } finally {
    await dispatcher.destroy();
  }
}

const namesShape = z.looseObject({ names: z.array(z.object({ name: z.string(), addresses: z.array(z.string()) })) });
const dnsSettingsShape = z.looseObject({ value: z.array(z.looseObject({ name: z.string(), address: z.string() })) });

/** Signs in and makes network, project, storage account and vault, once. */
export async function makeResources(site: Site, record: MoveRecord): Promise<MoveRecord> {
  if (record.hubNames !== undefined) return record;
  const { network, storage, project, vault } = hubNames;
  const operatorFile = join(site.hubState, "operator.json");
  await callWatari(site, ["login", "--operator-file", operatorFile, "--address", hubAddressOf(record), "--profile", site.profile]);
  await callWatari(site, ["network", "create", network, "--cidr", hubRangeOf(record)]);
  const made = namesShape.parse(await callWatari(site, ["project", "create", project, "--network", network]));
  await callWatari(site, ["storage", "create", storage, "--network", network]);
  await callWatari(site, ["vault", "create", vault, "--storage", storage, "--network", network]);
  await using session = await openHub(site);
  const { arm } = session;
  const settings = dnsSettingsShape.parse(await arm.change("POST", `${vaultPath(arm.groupPath, vault)}/dnsSettings`, {}));
  const names = [...made.names, ...settings.value.map(({ name, address }) => ({ name, addresses: [address] }))];
  const after = { ...record, hubNames: names };
  await writeRecord(site, after);
  return after;
}

export async function openHub(site: Site): Promise<Session> {
  return await openSession({ profile: site.profile });
}

/** Sets the appliance up and starts it; registered on return. */
export async function startAppliance(site: Site, record: MoveRecord): Promise<void> {
  if ((await findProgram(site, "appliance")) === undefined) await callAppliance(site, ["init", ...applianceSettings(record)]);
  const socketPath = join(site.applianceState, adminSocketName);
  const args = ["appliance", "run", "--state", site.applianceState];
  await startProgram(site, { name: "appliance", args, isReady: async () => await isListening(socketPath) });
  const status = z.looseObject({ registration: z.unknown().optional() }).parse(await callAppliance(site, ["status"]));
  if (status.registration !== undefined) return;
  const keyFile = join(site.folder, "registration-key.json");
  await callWatari(site, ["vault", "registration-key", hubNames.vault, "--out", keyFile]);
  await callAppliance(site, ["register", "--key", keyFile]);
  await rm(keyFile);
}

function applianceSettings(record: MoveRecord): readonly string[] {
  const { listenAddress, advertiseAddress, controlPort, dataPort, hubPort, sourceAddress, source } = record;
  return [
    ...["--listen", listenAddress, "--name", "move"],
    ...(advertiseAddress === undefined ? [] : ["--advertise", advertiseAddress]),
    ...["--control-port", String(controlPort), "--data-port", String(dataPort)],
    ...["--hub-port", String(hubPort), "--ssh-port", String(source.port)],
    ...["--site-range", sourceAddress],
    ...["--host", ...hostEntries(record)],
  ];
}

const credentialShape = z.looseObject({ credentialId: z.string() });
const machineShape = z.looseObject({ name: z.string(), infrastructureId: z.string() });

/** Gives the login to the appliance and looks at the source over SSH, which proves the login. */
export async function addSource(
  site: Site,
  record: MoveRecord,
  wanted: { readonly login: Login | undefined; readonly privilege: MoveWish["privilege"] },
): Promise<MoveRecord> {
  const { login, privilege } = wanted;
  if (login === undefined && record.machine !== undefined) return record;
  const credentialId = login === undefined ? undefined : await keepLogin(site, record, login, privilege);
  const added = machineShape.parse(await lookAtSource(site, record));
  const machine = {
    name: added.name,
    infrastructureId: added.infrastructureId,
    credentialId: credentialId ?? record.machine?.credentialId ?? "",
  };
  const after = { ...record, machine };
  await writeRecord(site, after);
  return after;
}

async function keepLogin(site: Site, record: MoveRecord, login: Login, privilege: MoveWish["privilege"]): Promise<string> {
  const kind = login.kind === "key" ? "linux-key" : "linux-password";
  const args = ["credential", "add", "--name", credentialName, "--kind", kind, "--user", record.source.user, "--privilege", privilege];
  // Secrets go by files of their owner and by stdin, never by arguments.
  const answer =
    login.kind === "password"
      ? await callAppliance(site, args, login.password)
      : await callAppliance(
          site,
          [...args, "--secret-file", login.file, ...(login.passphrase === undefined ? [] : ["--passphrase-file", "/dev/stdin"])],
          login.passphrase,
        );
  return credentialShape.parse(answer).credentialId;
}

async function lookAtSource(site: Site, record: MoveRecord): Promise<unknown> {
  try {
    return await callAppliance(site, ["machine", "add", "--address", record.sourceAddress, "--credential", credentialName]);
  } catch (error) {
    const action = error instanceof Fault ? repairOf(error.code, site, record) : undefined;
    if (!(error instanceof Fault) || action === undefined) throw error;
    throw new Fault(error.code, error.message, {
      evidence: error.evidence,
      causes: error.causes,
      action,
      retry: error.retry,
      cause: error,
    });
  }
}

/** What the appliance advises its own operators to do, in the words of this command. */
function repairOf(code: FaultCode, site: Site, record: MoveRecord): string | undefined {
  const address = `${record.sourceAddress}:${record.source.port}`;
  const forget = `watari appliance machine forget-host-key ${address} --state ${site.applianceState}`;
  const repairs: Partial<Record<FaultCode, string>> = {
    HostKeyChanged: `make sure that it is the right machine, then run: ${forget}`,
    GuestPasswordWrong: "call again with the right --key FILE or --password-file FILE",
    GuestPrivilegeMissing: `allow ${record.source.user} to use sudo, or call again for root`,
  };
  return repairs[code];
}
