// Tells systemd what this service is doing: sd_notify(3) datagrams, sent by the main process itself, so that NotifyAccess=main is enough.

import type { Clock } from "./clock.ts";

export interface ServiceNotices extends Disposable {
  /** From here on calls are answered. Also begins to tell the watchdog, when there is one, that the event loop turns. */
  ready(): void;
  stopping(): void;
}

export interface NoticeEnvironment {
  readonly NOTIFY_SOCKET?: string | undefined;
  readonly WATCHDOG_USEC?: string | undefined;
}

const silent: ServiceNotices = { ready: () => undefined, stopping: () => undefined, [Symbol.dispose]: () => undefined };
/** Told three times in the time that systemd waits, so that two may come late. */
const noticesPerWatchdog = 3;

/** Silent where systemd asked for nothing. */
export async function openServiceNotices(environment: NoticeEnvironment, clock: Clock): Promise<ServiceNotices> {
  const { NOTIFY_SOCKET: path, WATCHDOG_USEC: watchdogText } = environment;
  if (path === undefined || path === "") return silent;
  const send = await openDatagrams(path);
  const ending = new AbortController();
  const watchdogMs = Number(watchdogText ?? 0) / 1000;
  const watch = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      send("WATCHDOG=1");
      await clock.sleep(watchdogMs / noticesPerWatchdog, ending.signal);
    }
  };
  return {
    ready: () => {
      send("READY=1");
      if (watchdogMs > 0) void watch().catch(() => undefined); // Aborted: nothing is left to tell.
    },
    stopping: () => send("STOPPING=1"),
    [Symbol.dispose]: () => ending.abort(),
  };
}

const addressFamilyUnix = 1;
const datagramCloseOnExec = 2 | 0o2000000;
const noSignal = 0x4000;
const pathOffset = 2;

/** Node has no word for datagrams on unix sockets, so the C library is called. A notice that finds no listener is lost, as sd_notify's is. */
async function openDatagrams(path: string): Promise<(text: string) => void> {
  const { default: ffi } = await import("node:ffi");
  const { functions } = ffi.dlopen("libc.so.6", {
    socket: { arguments: ["int32", "int32", "int32"], return: "int32" },
    sendto: { arguments: ["int32", "pointer", "uint64", "int32", "pointer", "uint32"], return: "int64" },
    close: { arguments: ["int32"], return: "int32" },
  });
  const name = Buffer.from(path.replace(/^@/, "\0"), "utf8"); // unix(7): an abstract name begins with a zero byte.
  const address = Buffer.alloc(pathOffset + name.length);
  address.writeUInt16LE(addressFamilyUnix);
  name.copy(address, pathOffset);
  return (text) => {
    const message = Buffer.from(text, "utf8");
    const socket: unknown = functions.socket(addressFamilyUnix, datagramCloseOnExec, 0);
    if (typeof socket !== "number" || socket < 0) return;
    functions.sendto(socket, ffi.getRawPointer(message), BigInt(message.length), noSignal, ffi.getRawPointer(address), address.length);
    functions.close(socket);
  };
}
