// A small real network on the loopback for tests: dnsmasq, squid and TLS servers on free ports, all gone on dispose.

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer as createHttpsServer, type ServerOptions } from "node:https";
import { createServer as createTcpServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { systemClock } from "../base/clock.ts";
import { withRetry } from "../base/retry.ts";
import { runCommand } from "../base/run-command.ts";
import { dialAny } from "./dial.ts";

const startTriesMax = 5;
const startTimeoutMs = 20_000;

/** The program's path, or undefined where it is not installed. */
function findProgram(name: string): string | undefined {
  return ["/usr/sbin", "/usr/bin", "/usr/lib/squid"]
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false; // Not there; the caller skips with that reason.
      }
    });
}

/** Why a test that needs these programs is skipped; false when they are all here. For node:test's `skip`. */
export function skipUnless(...programs: readonly string[]): string | false {
  const missing = programs.filter((program) => findProgram(program) === undefined);
  return missing.length === 0 ? false : `not installed: ${missing.join(", ")}`;
}

export interface Running extends AsyncDisposable {
  readonly port: number;
}

/** dnsmasq that knows these names only; all else is NXDOMAIN. */
export async function startDns(records: Readonly<Record<string, readonly string[]>>): Promise<Running> {
  const lines = Object.entries(records).flatMap(([name, addresses]) =>
    addresses.map((address) => (address.startsWith("=") ? `--cname=${name},${address.slice(1)}` : `--host-record=${name},${address}`)),
  );
  return await withFreePort(freeUdpPort, async (port) => {
    const fixed = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces", "--log-facility=-"];
    const where = ["--listen-address=127.0.0.1", `--port=${port}`, "--local=/#/", "--local-ttl=60"];
    return await startProgram("dnsmasq", [...fixed, ...where, ...lines], /started, version/);
  });
}

export interface ProxyOptions {
  /** Names that CONNECT may go to, with the address the proxy knows for each. */
  readonly allowed: Readonly<Record<string, string>>;
  /** Asks for this user and password where given. */
  readonly credentials?: { readonly user: string; readonly password: string };
}

/** A real squid with this allow-list. */
export async function startProxy(options: ProxyOptions): Promise<Running> {
  const folder = await mkdtemp(join(tmpdir(), "watari-squid-"));
  await chmod(folder, 0o755); // squid reads its files as a user of its own.
  try {
    return await withFreePort(freeTcpPort, async (port) => {
      const config = join(folder, `squid-${port}.conf`);
      await writeFile(config, (await squidConfig(folder, port, options)).join("\n") + "\n");
      const squid = await startProgram("squid", ["-N", "-d", "1", "-f", config], /Accepting HTTP Socket connections/);
      await waitUntilOpen(port); // squid says so a moment before it listens.
      return {
        [Symbol.asyncDispose]: async () => {
          await squid[Symbol.asyncDispose]();
          await rm(folder, { recursive: true, force: true });
        },
      };
    });
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function squidConfig(folder: string, port: number, { allowed, credentials }: ProxyOptions): Promise<string[]> {
  const hosts = join(folder, "hosts");
  const lines = Object.entries(allowed).map(([name, address]) => `${address} ${name}`);
  await writeFile(hosts, lines.join("\n") + "\n", { mode: 0o644 });
  const names = ["nothing.invalid", ...Object.keys(allowed)];
  const config = [
    `http_port 127.0.0.1:${port}`,
    `hosts_file ${hosts}`,
    "dns_nameservers 127.0.0.1",
    "pid_filename none",
    "cache_log /dev/null",
    "access_log none",
    "cache deny all",
    "shutdown_lifetime 0 seconds",
    "pinger_enable off",
    `coredump_dir ${folder}`,
    `acl allowed dstdomain ${names.join(" ")}`,
  ];
  if (credentials === undefined) return [...config, "http_access allow CONNECT allowed", "http_access deny all"];
  const passwords = join(folder, "passwords");
  const hash = await runCommand("openssl", ["passwd", "-apr1", "-stdin"], { stdin: credentials.password });
  await writeFile(passwords, `${credentials.user}:${hash.stdout.trim()}\n`, { mode: 0o644 });
  return [
    ...config,
    `auth_param basic program ${findProgram("basic_ncsa_auth")} ${passwords}`,
    "auth_param basic realm test",
    "acl known proxy_auth REQUIRED",
    "http_access deny !known",
    "http_access allow CONNECT allowed",
    "http_access deny all",
  ];
}

export interface Site extends Running {
  /** Connections that were opened to it. */
  connectionCount(): number;
}

/** An HTTPS server (HTTP without certificate) on an address of the loopback. */
export async function startSite(listener: RequestListener, tls?: ServerOptions, address = "127.0.0.1"): Promise<Site> {
  const server: Server = tls === undefined ? createHttpServer(listener) : createHttpsServer(tls, listener);
  let connections = 0;
  server.on("connection", () => (connections += 1));
  server.listen(0, address);
  await once(server, "listening");
  return {
    port: portOf(server.address()),
    connectionCount: () => connections,
    [Symbol.asyncDispose]: async () => {
      if ("closeAllConnections" in server && typeof server.closeAllConnections === "function") server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function waitUntilOpen(port: number): Promise<void> {
  const waits = { clock: systemClock, attemptsMax: 100, firstWaitMs: 5, waitMaxMs: 50, isTransient: () => true };
  const socket = await withRetry(waits, async () => await dialAny({ host: "127.0.0.1", port }, ["127.0.0.1"], AbortSignal.timeout(1000)));
  socket.destroy();
}

/** A port that nobody listens on, at the time of asking. */
export async function freeTcpPort(): Promise<number> {
  const server = createTcpServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server.address());
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export async function freeUdpPort(): Promise<number> {
  const socket = createSocket("udp4").bind(0, "127.0.0.1");
  await once(socket, "listening");
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}

function portOf(address: AddressInfo | string | null): number {
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return address.port;
}

/** Another program may take a free port first; then the next one is tried. */
export async function withFreePort(pick: () => Promise<number>, start: (port: number) => Promise<AsyncDisposable>): Promise<Running> {
  for (let attempt = 1; ; attempt++) {
    const port = await pick();
    try {
      const running = await start(port);
      return { port, [Symbol.asyncDispose]: async () => await running[Symbol.asyncDispose]() };
    } catch (error) {
      if (attempt >= startTriesMax) throw error;
    }
  }
}

/** Starts a program and waits for the line on stderr that says it is ready. */
export async function startProgram(name: string, args: readonly string[], ready: RegExp): Promise<AsyncDisposable> {
  const child = spawn(findProgram(name) ?? name, args, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "exit");
  const said: string[] = [];
  const isReady = (async () => {
    for await (const line of createInterface({ input: child.stderr })) {
      if (ready.test(line)) return true;
      said.push(line);
    }
    return false;
  })();
  const timeout = AbortSignal.timeout(startTimeoutMs);
  timeout.addEventListener("abort", () => child.kill("SIGKILL"));
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
    await ended;
  };
  if (await isReady) {
    child.stderr.resume();
    return { [Symbol.asyncDispose]: stop };
  }
  await stop();
  throw new Error(`${name} did not start: ${said.slice(-5).join(" | ")}`);
}
