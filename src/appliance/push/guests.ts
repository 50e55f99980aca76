// The guests of this appliance over SSH: install, remove, look at one that no vCenter shows, and power such a one off.

import { join } from "node:path";
import { isIP } from "node:net";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { Log } from "../../base/log.ts";
import { byHandId, type ApplianceOrder, type DiscoveredMachine } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { Connector } from "../../connectivity/connector.ts";
import type { CredentialStore } from "../credentials/credential-store.ts";
import type { VcenterStore } from "../discovery/vcenter-store.ts";
import type { SiteAuthority } from "../identity/site-authority.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import { prepareAgentArchive, type AgentFiles } from "./agent-archive.ts";
import type { HostKeys } from "./host-keys.ts";
import { adoptAgent } from "./adopt.ts";
import { installAgent, removeAgent } from "./install.ts";
import { isSameUuid } from "./prerequisites.ts";
import { updateAgent } from "./update.ts";
import { openSshSession, type SshSession } from "./ssh-session.ts";

const addressesTriedMax = 4;
const powerOffMsMax = 30_000;
const lookAgainMs = 500;
const answerMsMax = 2_000;
/** Answers that must stay away in a row before a machine counts as off. */
const silentTriesMin = 3;

export interface GuestsParts {
  readonly registry: MachineRegistry;
  readonly vcenters: VcenterStore;
  readonly credentials: CredentialStore;
  readonly authority: SiteAuthority;
  readonly hostKeys: HostKeys;
  readonly connector: () => Pick<Connector, "connect">;
  readonly agentFiles: () => Promise<AgentFiles>;
  readonly stateFolder: string;
  readonly sshPort: number;
  readonly appliance: () => { readonly address: string; readonly controlPort: number; readonly dataPort: number };
  readonly discover: (signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

type Protect = Extract<ApplianceOrder, { kind: "protect" }>;

export class Guests implements AsyncDisposable {
  readonly #parts: GuestsParts;
  /** Sessions opened before a quiesce: a frozen guest takes no new login. */
  readonly #kept = new Map<MachineId, SshSession>();

  constructor(parts: GuestsParts) {
    this.#parts = parts;
  }

  async install(
    order: Protect,
    onStep: (percent: number, text: string) => void,
    signal: AbortSignal,
  ): Promise<{ readonly machineId: MachineId; readonly address: string }> {
    const { credentials, authority, registry, clock, log, appliance, agentFiles, stateFolder } = this.#parts;
    const credential = credentials.find(order.runAsAccountId);
    if (credential.kind === "vcenter") {
      throw new Fault("InputInvalid", `the credential ${credential.name} is for vCenters, not for guests`, {
        evidence: { credential: credential.name },
      });
    }
    const shown = await this.#findMachine(order.infrastructureId, signal);
    const addresses = order.address === undefined ? preferIpv4(shown.addresses) : [order.address];
    if (addresses.length === 0) {
      throw new Fault("GuestUnreachable", `the vCenter shows no address of ${shown.name}`, {
        evidence: { machine: shown.name, powerState: shown.powerState },
        action: "start the guest's tools so that its address is shown, or give the address with --address",
      });
    }
    onStep(1, "preparing the agent");
    const files = await agentFiles();
    const archivePath = await prepareAgentArchive(files, join(stateFolder, "cache"));
    onStep(3, `logging in to ${shown.name}`);
    const { session, address } = await this.#openAny(addresses, credential.credentialId, signal);
    await using owned = session;
    const { machine } = await installAgent(
      {
        session: owned,
        host: address,
        archivePath,
        unitText: files.unitText,
        appliance: appliance(),
        authorityPem: authority.caPem,
        passphrase: authority.passphrase,
        expectedUuid: shown.smbiosUuid === "" ? undefined : shown.smbiosUuid,
        registry,
        clock,
        log,
        onStep,
      },
      signal,
    );
    return { machineId: machine.machineId, address };
  }

  /** By the account that installed the agent, unless the order names another. */
  async updateAgent(
    { machineId, runAsAccountId }: Extract<ApplianceOrder, { kind: "updateAgent" }>,
    onStep: (percent: number, text: string) => void,
    signal: AbortSignal,
  ): Promise<{ readonly agentVersion: string }> {
    const { agentFiles, stateFolder, registry, clock, log } = this.#parts;
    const machine = registry.get(machineId);
    const credentialId = runAsAccountId ?? machine.credentialId;
    if (machine.address === undefined || credentialId === undefined)
      throw new Fault("NotFound", `how to log in to ${machine.facts.hostname} is not known`, { evidence: { machineId } });
    onStep(1, "preparing the agent");
    const files = await agentFiles();
    const archivePath = await prepareAgentArchive(files, join(stateFolder, "cache"));
    onStep(5, `logging in to ${machine.facts.hostname}`);
    await using session = await this.#open(machine.address, credentialId, signal);
    return await updateAgent(
      { session, host: machine.address, machineId, archivePath, unitText: files.unitText, registry, clock, log, onStep },
      signal,
    );
  }

  /** Takes the machine over from another appliance; its agent keeps its id and its log of changes. */
  async adopt(
    order: Extract<ApplianceOrder, { kind: "adopt" }>,
    onStep: (percent: number, text: string) => void,
    signal: AbortSignal,
  ): Promise<{ readonly address: string }> {
    const { authority, registry, clock, log, appliance } = this.#parts;
    const { machineId, infrastructureId, runAsAccountId } = order;
    const shown = await this.#findMachine(infrastructureId, signal);
    const addresses = order.address === undefined ? preferIpv4(shown.addresses) : [order.address];
    onStep(5, `logging in to ${shown.name}`);
    const { session, address } = await this.#openAny(addresses, runAsAccountId, signal);
    await using owned = session;
    const guest = await readGuestIdentity(owned);
    if (shown.smbiosUuid !== "" && guest.smbiosUuid !== "" && !isSameUuid(shown.smbiosUuid, guest.smbiosUuid))
      throw new Fault("GuestMismatch", `the machine that answers at ${address} is not the one that was chosen`, {
        evidence: { host: address, expectedUuid: shown.smbiosUuid, foundUuid: guest.smbiosUuid },
      });
    registry.expect(machineId, guest);
    const { caPem: authorityPem, passphrase } = authority;
    const own = { session: owned, host: address, machineId, appliance: appliance(), authorityPem, passphrase };
    await adoptAgent({ ...own, registry, clock, log, onStep }, signal);
    return { address };
  }

  async uninstall(machineId: MachineId, signal: AbortSignal): Promise<void> {
    await using session = await this.#openFor(machineId, signal);
    await removeAgent(session);
  }

  /** Logs in and becomes root, as an installation would; changes nothing but the pinned host key. Answers the guest's own name. */
  async tryLogin(address: string, credentialName: string, signal?: AbortSignal): Promise<string> {
    const { credentialId } = this.#parts.credentials.find(credentialName);
    await using session = await this.#open(address, credentialId, signal);
    return (await session.requireAsRoot("try the account", "uname -n")).trim().slice(0, 255);
  }

  /** Looks at a machine over SSH and keeps it as one that no vCenter shows. */
  async addByHand(address: string, credentialName: string, signal?: AbortSignal): Promise<DiscoveredMachine> {
    const { credentials, vcenters } = this.#parts;
    const credential = credentials.find(credentialName);
    await using session = await this.#open(address, credential.credentialId, signal);
    const text = await session.requireAsRoot("look at the machine", lookScript);
    const seen = lookShape.parse(
      Object.fromEntries(text.split("\n").map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1).trim()])),
    );
    const machine: DiscoveredMachine = {
      infrastructureId: (seen.uuid === "" ? seen.machine : seen.uuid).toLowerCase().slice(0, 64),
      vcenterId: byHandId,
      name: seen.name,
      smbiosUuid: seen.uuid.toLowerCase(),
      guestOs: seen.os,
      powerState: "poweredOn",
      cpuCount: Number(seen.cpus),
      memoryBytes: Number(seen.memory) * 1024,
      firmware: seen.firmware === "efi" ? "efi" : "bios",
      addresses: [address],
      disks: seen.disks
        .split(" ")
        .filter((each) => each !== "")
        .slice(0, 64)
        .map((each) => ({ label: each.split(":")[0] ?? "", sizeBytes: Number(each.split(":")[1]), controller: "" })),
      nics: [],
    };
    vcenters.putByHand(machine);
    return machine;
  }

  /** By the hub's order. Without an account nothing is known but the address, until the agent speaks. */
  async addOrdered(order: Extract<ApplianceOrder, { kind: "addMachine" }>, signal: AbortSignal): Promise<DiscoveredMachine> {
    const { vcenters, random, sshPort } = this.#parts;
    const { address, name, runAsAccountId } = order;
    const present = vcenters.machines().find((machine) => machine.addresses.includes(address));
    if (present !== undefined && present.vcenterId !== byHandId)
      throw new Fault("StateConflict", `could not add the machine ${name}: a vCenter shows one at ${address}`, {
        evidence: { address, infrastructureId: present.infrastructureId, vcenterId: present.vcenterId, machine: present.name },
        action: `protect ${present.name} as the vCenter shows it`,
        retry: "never",
      });
    if (runAsAccountId !== undefined) {
      const seen = { ...(await this.addByHand(address, runAsAccountId, signal)), name };
      vcenters.putByHand(seen);
      return seen;
    }
    if (!(await this.#answers(address, signal)))
      throw new Fault("GuestUnreachable", `could not add the machine ${name}: nothing answers at ${address} port ${sshPort}`, {
        evidence: { address, port: sshPort },
      });
    const machine: DiscoveredMachine = present ?? {
      ...{ infrastructureId: random.uuid(), vcenterId: byHandId, name, smbiosUuid: "", guestOs: "Linux", powerState: "poweredOn" },
      ...{ cpuCount: 0, memoryBytes: 0, firmware: "bios", addresses: [address], disks: [], nics: [] },
    };
    vcenters.putByHand({ ...machine, name });
    return machine;
  }

  isByHand(machineId: MachineId): boolean {
    const { registry, vcenters } = this.#parts;
    const infrastructureId = registry.find(machineId)?.infrastructureId;
    return infrastructureId !== undefined && vcenters.findMachine(infrastructureId)?.vcenterId === byHandId;
  }

  /** Opens the session by which a frozen guest can still be powered off. */
  async prepareFence(machineId: MachineId, signal: AbortSignal): Promise<void> {
    if (!this.isByHand(machineId)) return;
    const session = await this.#openFor(machineId, signal);
    await this.#drop(machineId);
    await session.requireAsRoot("prepare for the power-off", "test -w /proc/sysrq-trigger");
    this.#kept.set(machineId, session);
  }

  /** Powers a machine that no vCenter shows off, at once and without a write, and confirms that it answers no more. */
  async powerOff(machineId: MachineId, signal: AbortSignal): Promise<void> {
    const { clock, registry } = this.#parts;
    const { address } = registry.get(machineId);
    if (address === undefined) throw new Fault("NotFound", "the machine's address is not known", { evidence: { machineId } });
    const session = this.#kept.get(machineId) ?? (await this.#openFor(machineId, signal));
    this.#kept.set(machineId, session);
    // The machine dies while it answers: a broken connection is the expected end, and the silence below is the proof.
    await session
      .runAsRoot("echo 1 > /proc/sys/kernel/sysrq; echo o > /proc/sysrq-trigger; sleep 5", { timeoutMs: 8_000, signal })
      .catch(() => undefined);
    await this.#drop(machineId);
    const endMs = clock.monotonicMs() + powerOffMsMax;
    let silentTries = 0;
    while (silentTries < silentTriesMin) {
      signal.throwIfAborted();
      const isAnswering = await this.#answers(address, signal);
      silentTries = isAnswering ? 0 : silentTries + 1;
      if (isAnswering && clock.monotonicMs() > endMs) {
        throw new Fault("FenceUnconfirmed", `the machine at ${address} still answers after the order to power off`, {
          evidence: { machineId, address },
        });
      }
      await clock.sleep(lookAgainMs, signal);
    }
  }

  /** Nobody here can switch such a machine on. Done when it answers: it was never off, or someone has switched it on. */
  async requirePoweredOn(machineId: MachineId, signal: AbortSignal): Promise<void> {
    const { address = "" } = this.#parts.registry.get(machineId);
    if (await this.#answers(address, signal)) return;
    throw new Fault("OperationNotSupported", "a machine that no vCenter shows cannot be powered on from here", {
      evidence: { machineId, address },
      action: "power the machine on by hand, then call again",
    });
  }

  /** Whether anything accepts a connection where the machine's SSH server was. A frozen machine still does. */
  async #answers(address: string, signal: AbortSignal): Promise<boolean> {
    const { connector, sshPort } = this.#parts;
    const socket = await connector()
      .connect({ host: address, port: sshPort }, AbortSignal.any([signal, AbortSignal.timeout(answerMsMax)]))
      .catch(() => undefined); // No answer is an answer.
    socket?.destroy();
    signal.throwIfAborted();
    return socket !== undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machineId of [...this.#kept.keys()]) await this.#drop(machineId);
  }

  async #drop(machineId: MachineId): Promise<void> {
    const session = this.#kept.get(machineId);
    this.#kept.delete(machineId);
    await session?.[Symbol.asyncDispose]();
  }

  async #findMachine(infrastructureId: string, signal: AbortSignal): Promise<DiscoveredMachine> {
    const { vcenters, discover } = this.#parts;
    const known = vcenters.findMachine(infrastructureId);
    if (known !== undefined) return known;
    await discover(signal);
    const found = vcenters.findMachine(infrastructureId);
    if (found !== undefined) return found;
    throw new Fault("NotFound", "no vCenter of this appliance shows the machine", { evidence: { infrastructureId } });
  }

  async #openAny(
    addresses: readonly string[],
    credentialId: string,
    signal: AbortSignal,
  ): Promise<{ readonly session: SshSession; readonly address: string }> {
    let failed = new Fault("GuestUnreachable", "no address of the machine is known", {
      action: "start the guest's tools, or give its address",
    });
    for (const address of addresses.slice(0, addressesTriedMax)) {
      try {
        return { session: await this.#open(address, credentialId, signal), address };
      } catch (error) {
        if (!(error instanceof Fault) || error.code !== "GuestUnreachable") throw error;
        failed = error;
      }
    }
    throw failed;
  }

  async #openFor(machineId: MachineId, signal: AbortSignal): Promise<SshSession> {
    const { address, credentialId } = this.#parts.registry.get(machineId);
    if (address !== undefined && credentialId !== undefined) return await this.#open(address, credentialId, signal);
    throw new Fault("NotFound", "how to log in to the machine is not known", { evidence: { machineId } });
  }

  async #open(host: string, credentialId: string, signal?: AbortSignal): Promise<SshSession> {
    const { credentials, connector, hostKeys, sshPort } = this.#parts;
    const credential = credentials.find(credentialId);
    const secret = credentials.reveal(credential.credentialId);
    return await openSshSession({ target: { host, port: sshPort, credential, secret }, connector: connector(), hostKeys }, signal);
  }
}

function preferIpv4(addresses: readonly string[]): readonly string[] {
  const usable = addresses.filter((address) => !address.startsWith("fe80:") && !address.startsWith("169.254."));
  return usable.toSorted((left, right) => isIP(left) - isIP(right));
}

/** By which the registry will know the machine when its agent registers. */
async function readGuestIdentity(session: SshSession): Promise<{ readonly smbiosUuid: string; readonly osMachineId: string }> {
  const text = await session.requireAsRoot(
    "look at the machine",
    'echo "$(cat /sys/class/dmi/id/product_uuid 2>/dev/null)"; cat /etc/machine-id',
  );
  const [smbiosUuid = "", osMachineId = ""] = text.split("\n").map((line) => line.trim());
  return { smbiosUuid: smbiosUuid.toLowerCase(), osMachineId };
}

const lookScript = `export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "uuid=$(cat /sys/class/dmi/id/product_uuid 2>/dev/null)"
echo "machine=$(cat /etc/machine-id)"
echo "name=$(uname -n)"
echo "os=$(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
echo "cpus=$(getconf _NPROCESSORS_ONLN)"
echo "memory=$(awk '/^MemTotal/{print $2}' /proc/meminfo)"
echo "firmware=$(test -d /sys/firmware/efi && echo efi || echo bios)"
echo "disks=$(lsblk -bdnro NAME,SIZE,TYPE 2>/dev/null | awk '$3=="disk"{printf "%s:%s ", $1, $2}')"`;

const lookShape = z.object({
  uuid: z.string(),
  machine: z.string(),
  name: z.string().min(1).max(253),
  os: z.string().max(255),
  cpus: z.string().regex(/^\d+$/),
  memory: z.string().regex(/^\d+$/),
  firmware: z.string(),
  disks: z.string(),
});
