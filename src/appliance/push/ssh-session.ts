// One SSH connection to a guest: pinned host key, typed credential, commands as root with the password on stdin only.

import { createHash } from "node:crypto";
import { pipeline } from "node:stream/promises";
import type { Readable } from "node:stream";
import { Client, type ClientChannel, type ConnectConfig } from "ssh2";
import { Fault } from "../../contract/errors.ts";
import type { Connector } from "../../connectivity/connector.ts";
import type { Credential, CredentialSecret } from "../credentials/credential-store.ts";
import type { HostKeys } from "./host-keys.ts";

const readyMsMax = 20_000;
const outputBytesMax = 1 << 20;
const commandMsMax = 120_000;

export interface SshTarget {
  readonly host: string;
  readonly port: number;
  readonly credential: Pick<Credential, "userName" | "privilege" | "name">;
  readonly secret: CredentialSecret;
}

export interface RemoteResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RemoteOptions {
  /** Text or a stream for the command's stdin. */
  readonly stdin?: string | Readable;
  /** 120 000 unless told. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface SshSession extends AsyncDisposable {
  /** Runs a script of POSIX sh as the account that logged in. */
  run(script: string, options?: RemoteOptions): Promise<RemoteResult>;
  /** Runs a script as root. Throws GuestPrivilegeMissing. */
  runAsRoot(script: string, options?: RemoteOptions): Promise<RemoteResult>;
  /** As runAsRoot; throws GuestCommandFailed, with the output, unless it ends with 0. */
  requireAsRoot(doing: string, script: string, options?: RemoteOptions): Promise<string>;
}

/** Connects and logs in. Throws GuestUnreachable, HostKeyChanged or GuestPasswordWrong. */
export async function openSshSession(
  parts: { readonly target: SshTarget; readonly connector: Pick<Connector, "connect">; readonly hostKeys: HostKeys },
  signal?: AbortSignal,
): Promise<SshSession> {
  const { target } = parts;
  const client = await connectClient(parts, signal);
  let rootPrefix: RootPrefix | undefined;
  const exec = async (command: string, options: RemoteOptions, firstLine: string): Promise<RemoteResult> =>
    await execute(
      { client, command, firstLine, target },
      { ...options, ...(signal === undefined ? {} : { signal: options.signal ?? signal }) },
    );
  const runAsRoot = async (script: string, options: RemoteOptions = {}): Promise<RemoteResult> => {
    rootPrefix ??= await findRootPrefix(target, async (command, firstLine) => await exec(command, {}, firstLine));
    return await exec(`${rootPrefix.command}sh -c ${quote(script)}`, options, rootPrefix.firstLine);
  };
  return {
    run: async (script, options = {}) => await exec(`sh -c ${quote(script)}`, options, ""),
    runAsRoot,
    requireAsRoot: async (doing, script, options) => {
      const result = await runAsRoot(script, options);
      if (result.exitCode === 0) return result.stdout;
      throw new Fault("GuestCommandFailed", `could not ${doing} on ${target.host}`, {
        evidence: { host: target.host, exitCode: result.exitCode, output: `${result.stderr}\n${result.stdout}`.trim().slice(-2000) },
      });
    },
    [Symbol.asyncDispose]: async () => {
      client.end();
      client.destroy();
      await Promise.resolve();
    },
  };
}

interface RootPrefix {
  readonly command: string;
  /** Sent before the script's own stdin: sudo's password line. */
  readonly firstLine: string;
}

async function findRootPrefix(target: SshTarget, exec: (command: string, firstLine: string) => Promise<RemoteResult>): Promise<RootPrefix> {
  const isRoot = async (prefix: RootPrefix): Promise<RemoteResult> => await exec(`${prefix.command}id -u`, prefix.firstLine);
  const answers = (result: RemoteResult): boolean => result.exitCode === 0 && result.stdout.trim() === "0";
  const plain: RootPrefix = { command: "", firstLine: "" };
  if (target.credential.privilege === "root" && answers(await isRoot(plain))) return plain;
  const silent: RootPrefix = { command: "sudo -n -- ", firstLine: "" };
  if (answers(await isRoot(silent))) return silent;
  const password = target.secret.kind === "password" ? target.secret.password : target.secret.sudoPassword;
  // -k: sudo always reads the password line, so that it never ends up in the script's stdin.
  const asked: RootPrefix = { command: "sudo -k -S -p '' -- ", firstLine: `${password ?? ""}\n` };
  const last = password === undefined ? undefined : await isRoot(asked);
  if (last !== undefined && answers(last)) return asked;
  throw new Fault("GuestPrivilegeMissing", `the account ${target.credential.userName} cannot become root on ${target.host}`, {
    evidence: { host: target.host, userName: target.credential.userName, answer: (last?.stderr ?? "").trim().slice(-400) },
  });
}

async function connectClient(
  parts: { readonly target: SshTarget; readonly connector: Pick<Connector, "connect">; readonly hostKeys: HostKeys },
  signal?: AbortSignal,
): Promise<Client> {
  const { target, connector, hostKeys } = parts;
  const { host, port, credential, secret } = target;
  const evidence = { host, port, userName: credential.userName };
  const sock = await connector.connect({ host, port }, signal).catch((error: unknown) => {
    const seen = error instanceof Fault ? error.evidence : {};
    throw new Fault("GuestUnreachable", `could not reach the SSH server of ${host} port ${port}`, {
      evidence: { ...seen, ...evidence },
      cause: error,
    });
  });
  const client = new Client();
  let changed: { readonly known: string; readonly seen: string } | undefined;
  const config: ConnectConfig = {
    sock,
    username: credential.userName,
    readyTimeout: readyMsMax,
    keepaliveInterval: 15_000,
    hostVerifier: (key: Buffer) => {
      const seen = `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
      const known = hostKeys.pin(`${host}:${port}`, seen);
      if (known !== seen) changed = { known, seen };
      return known === seen;
    },
    ...(secret.kind === "password"
      ? { password: secret.password, tryKeyboard: true }
      : { privateKey: secret.privateKeyPem, ...(secret.keyPassphrase === undefined ? {} : { passphrase: secret.keyPassphrase }) }),
  };
  if (secret.kind === "password") {
    client.on("keyboard-interactive", (_name, _instructions, _lang, prompts, finish) => finish(prompts.map(() => secret.password)));
  }
  const onAbort = (): void => void client.destroy();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      client.once("ready", () => resolve());
      client.once("error", reject);
      client.once("close", () => reject(new Error("the SSH server closed the connection")));
      client.connect(config);
    });
  } catch (error) {
    client.on("error", () => undefined); // The first error was the telling one.
    client.destroy();
    throw toConnectFault(error, { evidence, changed });
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
  client.on("error", () => undefined); // A broken connection fails the command that uses it.
  return client;
}

function toConnectFault(
  error: unknown,
  seen: {
    readonly evidence: { readonly host: string; readonly port: number; readonly userName: string };
    readonly changed: { readonly known: string; readonly seen: string } | undefined;
  },
): Fault {
  const { evidence, changed } = seen;
  if (changed !== undefined) {
    return new Fault("HostKeyChanged", `refused to log in to ${evidence.host}: its host key is not the one of before`, {
      evidence: { ...evidence, knownKey: changed.known, seenKey: changed.seen },
      cause: error,
    });
  }
  const isAuthentication = error instanceof Error && "level" in error && error.level === "client-authentication";
  if (isAuthentication || (error instanceof Error && error.message.startsWith("Cannot parse privateKey"))) {
    return new Fault("GuestPasswordWrong", `${evidence.host} refused the login of ${evidence.userName}`, { evidence, cause: error });
  }
  const answer = error instanceof Error ? error.message : "unknown";
  return new Fault("GuestUnreachable", `could not talk to the SSH server of ${evidence.host} port ${evidence.port}`, {
    evidence: { ...evidence, answer },
    cause: error,
  });
}

async function execute(
  what: { readonly client: Client; readonly command: string; readonly firstLine: string; readonly target: SshTarget },
  options: RemoteOptions,
): Promise<RemoteResult> {
  const { client, command, firstLine, target } = what;
  const deadline = AbortSignal.timeout(options.timeoutMs ?? commandMsMax);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]);
  const broken = (cause: unknown): Fault =>
    new Fault("GuestCommandFailed", `the connection to ${target.host} broke while a command ran`, {
      evidence: { host: target.host, timedOut: deadline.aborted },
      cause,
    });
  if (signal.aborted) throw broken(signal.reason);
  const running = await new Promise<{ readonly channel: ClientChannel; readonly ended: Promise<number> }>((resolve, reject) => {
    client.exec(command, (error, channel) => {
      if (error !== undefined) return reject(broken(error));
      // Listened to at once: a short command ends in the same packet that opens its channel.
      return resolve({ channel, ended: exitOf(channel, signal, broken) });
    });
  });
  const { channel, ended } = running;
  ended.catch(() => undefined); // Awaited below; a failure before that is not lost.
  const stdout = collect(channel);
  const stderr = collect(channel.stderr);
  channel.on("error", () => undefined); // `ended` tells.
  channel.stdin.on("error", () => undefined); // A command may end before it has read its input; its exit code tells.
  const feeding = feed(channel, firstLine, options.stdin).catch(() => undefined); // As above.
  const exitCode = await ended;
  await feeding;
  return { exitCode, stdout: stdout(), stderr: stderr() };
}

async function exitOf(channel: ClientChannel, signal: AbortSignal, broken: (cause: unknown) => Fault): Promise<number> {
  return await new Promise<number>((resolve, reject) => {
    let exitCode: number | undefined;
    const onAbort = (): void => {
      channel.destroy();
      reject(broken(signal.reason));
    };
    channel.once("exit", (code: number | null) => {
      exitCode = code ?? 128;
    });
    channel.once("close", () => {
      signal.removeEventListener("abort", onAbort);
      if (exitCode === undefined) reject(broken(undefined));
      else resolve(exitCode);
    });
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

async function feed(channel: ClientChannel, firstLine: string, stdin: string | Readable | undefined): Promise<void> {
  if (firstLine !== "") channel.stdin.write(firstLine);
  if (stdin === undefined || typeof stdin === "string") channel.stdin.end(stdin ?? "");
  else await pipeline(stdin, channel.stdin);
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on("data", (chunk: Buffer) => {
    if (bytes < outputBytesMax) chunks.push(chunk);
    bytes += chunk.length;
  });
  return () => Buffer.concat(chunks).toString("utf8");
}

/** One word of POSIX sh, whatever the text holds. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
