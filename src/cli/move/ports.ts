// Finds addresses and ports that disturb nothing: what something listens on here is left alone.

import { createHash } from "node:crypto";
import { lookup } from "node:dns/promises";
import { connect, createServer, isIP } from "node:net";
import { networkInterfaces } from "node:os";
import { Fault } from "../../contract/errors.ts";

const reachMsMax = 10_000;
const portsTriedMax = 200;

/** Whether this program could listen there now. */
export async function isFree(address: string, port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ host: address, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** The wanted port where it is free, else the next free one from `from` on. */
export async function choosePort(
  address: string,
  wanted: { readonly port: number; readonly from: number; readonly taken?: readonly number[] },
): Promise<number> {
  const { port, from, taken = [] } = wanted;
  const candidates = [port, ...Array.from({ length: portsTriedMax }, (_, index) => from + index)];
  for (const candidate of candidates) if (!taken.includes(candidate) && (await isFree(address, candidate))) return candidate;
  throw new Fault("ListenFailed", `could not find a free port on ${address}`, {
    evidence: { address, tried: `${port}, ${from} and more` },
  });
}

/** The third octet of a loopback range 127.90.x.0/24 for a hub: the folder's own, or the next that no other move has. */
export function chooseHubOctet(folder: string, taken: readonly number[]): number {
  const first = createHash("sha256").update(folder).digest()[0] ?? 0;
  const octets = Array.from({ length: 256 }, (_, index) => (first + index) % 256);
  const free = octets.find((octet) => !taken.includes(octet));
  if (free !== undefined) return free;
  throw new Fault("LimitReached", "could not begin another move: 256 are here already", {
    action: "remove one that has ended: watari move --remove root@HOST",
  });
}

/** The address that a name stands for, IPv4 first. */
export async function addressOf(host: string): Promise<string> {
  if (isIP(host) !== 0) return host;
  try {
    return (await lookup(host, { order: "ipv4first" })).address;
  } catch (error) {
    throw new Fault("NameUnresolved", `could not find the address of ${host}`, { evidence: { name: host }, cause: error });
  }
}

/** The address of this machine from which the source is reached: connects to its SSH server once. */
export async function addressFacing(address: string, port: number): Promise<string> {
  return await new Promise((resolve, reject) => {
    const socket = connect({ host: address, port, timeout: reachMsMax });
    const fail = (reason: string): void => {
      socket.destroy();
      reject(
        new Fault("GuestUnreachable", `could not reach the SSH server of ${address} port ${port}`, {
          evidence: { host: address, port, reason },
        }),
      );
    };
    socket.once("connect", () => {
      const local = socket.localAddress;
      socket.destroy();
      if (local === undefined) fail("the connection told no local address");
      else resolve(local);
    });
    socket.once("timeout", () => fail(`no answer within ${reachMsMax / 1000} s`));
    socket.once("error", (error) => fail(error.message));
  });
}

/** Whether this machine has the address itself. */
export function isOwnAddress(address: string): boolean {
  if (address.startsWith("127.") || address === "::1") return true;
  return Object.values(networkInterfaces()).some((interfaces) => interfaces?.some((each) => each.address === address) === true);
}
