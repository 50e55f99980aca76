// Chooses what a move keeps from its first call on: addresses and ports of hub and appliance, and how the landed machine is reached.

import { resolve } from "node:path";
import { Fault } from "../../contract/errors.ts";
import { hubAddressOf } from "./hub-settings.ts";
import { addressFacing, addressOf, chooseHubOctet, choosePort, isOwnAddress } from "./ports.ts";
import { listSites, type MoveRecord, type Site } from "./site.ts";
import type { Forward, MoveWish } from "./wish.ts";

const httpsPort = 443;
const agentDataPort = 9443;
/** Where to look on when the usual port is taken. */
const hubPortsFrom = 44_301;
const controlPortsFrom = 44_401;
const dataPortsFrom = 44_501;
const forwardPortsFrom = 2_222;
const probePortsFrom = 8_080;
const forwardAddress = "127.0.0.1";

/** Reaches the source once, to learn which address of this machine faces it. */
export async function chooseRecord(site: Site, wish: MoveWish, stateFolder: string): Promise<MoveRecord> {
  const { source, applianceAddress } = wish;
  const sourceAddress = await addressOf(source.host);
  const facing = await addressFacing(sourceAddress, source.port);
  const listenAddress = applianceAddress !== undefined && isOwnAddress(applianceAddress) ? applianceAddress : facing;
  const others = await listSites(stateFolder);
  const hubOctet = chooseHubOctet(
    site.folder,
    others.map(({ record }) => record.hubOctet),
  );
  const hubPort = await choosePort(hubAddressOf({ hubOctet }), { port: httpsPort, from: hubPortsFrom });
  const agentPorts = others.flatMap(({ record }) => [record.controlPort, record.dataPort]);
  const controlPort = await choosePort(listenAddress, { port: httpsPort, from: controlPortsFrom, taken: agentPorts });
  const dataPort = await choosePort(listenAddress, { port: agentDataPort, from: dataPortsFrom, taken: agentPorts });
  return {
    version: 1,
    source,
    hubOctet,
    hubPort,
    sourceAddress,
    listenAddress,
    ...(applianceAddress === undefined || applianceAddress === listenAddress ? {} : { advertiseAddress: applianceAddress }),
    controlPort,
    dataPort,
    ...(await chooseLanding(
      wish,
      others.flatMap(({ record }) => record.forwards),
    )),
  };
}

/** A later call may change how the machine lands, as long as it has not landed. */
export async function applyWish(record: MoveRecord, wish: MoveWish): Promise<MoveRecord> {
  const { exportFolder: _old, ...kept } = record;
  const isSame =
    JSON.stringify(record.network) === JSON.stringify(wish.network) &&
    wish.forwards.every((forward) => record.forwards.some((each) => isSameForward(each, forward))) &&
    (wish.probe === undefined || wish.network.kind === "bridge" || record.forwards.some(({ guestPort }) => guestPort === wish.probe?.port));
  const landing = isSame ? { network: record.network, forwards: record.forwards } : await chooseLanding(wish, []);
  return { ...kept, source: wish.source, ...landing, ...exportFolderOf(wish, record) };
}

async function chooseLanding(
  wish: MoveWish,
  others: readonly Forward[],
): Promise<Pick<MoveRecord, "network" | "forwards" | "exportFolder">> {
  const forwards: Forward[] = [...wish.forwards];
  const taken = (): number[] => [...others, ...forwards].map(({ hostPort }) => hostPort);
  for (const { hostPort } of wish.forwards) {
    if ((await choosePort(forwardAddress, { port: hostPort, from: hostPort })) === hostPort) continue;
    throw new Fault("InputInvalid", `could not forward port ${hostPort}: something listens on it here`, {
      evidence: { flag: "--forward" },
    });
  }
  if (wish.network.kind === "user" && forwards.length === 0) {
    const hostPort = await choosePort(forwardAddress, { port: forwardPortsFrom, from: forwardPortsFrom, taken: taken() });
    forwards.push({ hostPort, guestPort: wish.source.port });
  }
  const { probe } = wish;
  if (probe !== undefined && !forwards.some(({ guestPort }) => guestPort === probe.port)) {
    const hostPort = await choosePort(forwardAddress, { port: probePortsFrom, from: probePortsFrom, taken: taken() });
    forwards.push({ hostPort, guestPort: probe.port });
  }
  return { network: wish.network, forwards, ...exportFolderOf(wish, undefined) };
}

function exportFolderOf(wish: MoveWish, record: MoveRecord | undefined): Pick<MoveRecord, "exportFolder"> {
  const folder = wish.outcome.kind === "files" ? wish.outcome.folder : undefined;
  const chosen = folder === undefined ? record?.exportFolder : resolve(folder);
  return chosen === undefined ? {} : { exportFolder: chosen };
}

function isSameForward(one: Forward, other: Forward): boolean {
  return one.hostPort === other.hostPort && one.guestPort === other.guestPort;
}
