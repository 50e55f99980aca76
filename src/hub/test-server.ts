// For tests: a PostgreSQL server as a site has one, over TCP with TLS and a password, that can be restarted and paused.

import { chmod, chown, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { tryCommand } from "../base/run-command.ts";
import { chooseAccount, findBinaries } from "./db/private-cluster.ts";
import { openAuthority } from "./pki/authority.ts";
import { findFreePort } from "./test-client.ts";

export interface TestServer extends AsyncDisposable {
  readonly port: number;
  readonly dataFolder: string;
  readonly caFile: string;
  readonly passwordFile: string;
  /** A new, empty database; the URL names this server by the name in its certificate. */
  createDatabase(): Promise<string>;
  /** "fast" ends its sessions in order; "immediate" is as if it had crashed. */
  stop(mode: "fast" | "immediate"): Promise<void>;
  start(): Promise<void>;
  /** Every connection is cut, the server comes back at once. */
  restart(): Promise<void>;
  /** No process of the server runs until `resume`; connections stay open. */
  pause(): Promise<void>;
  resume(): Promise<void>;
}

export async function startTestServer(): Promise<TestServer> {
  const folder = await mkdtemp(join(tmpdir(), "watari-tcp-"));
  const [binaries, account, port] = [await findBinaries(), await chooseAccount(), await findFreePort()];
  const data = join(folder, "data");
  await chown(folder, account.uid, account.gid);
  await chmod(folder, 0o755);
  const run = async (program: string, args: readonly string[], stdin?: string): Promise<string> => {
    const [first = "", ...rest] = [...account.prefix, join(binaries, program), ...args];
    const env = { PATH: "/usr/bin:/bin", LC_ALL: "C.UTF-8" };
    const end = await tryCommand(first, rest, { cwd: folder, env, timeoutMs: 60_000, ...(stdin === undefined ? {} : { stdin }) });
    if (end.exitCode !== 0) throw new Error(`${program}: ${end.stderr}`);
    return end.stdout;
  };
  const own = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text, { mode: 0o600 });
    await chown(join(folder, name), account.uid, account.gid);
    return join(folder, name);
  };
  const authority = await openAuthority({ folder: join(folder, "pki"), clock: systemClock, random: systemRandom });
  const { certificatePem, keyPem } = await authority.serverCertificate("localhost");
  const passwordFile = await own("password", `${Buffer.from(systemRandom.bytes(18)).toString("base64url")}\n`);
  const caFile = await own("ca.pem", authority.caPem);
  const [certificate, key] = [await own("server.pem", certificatePem), await own("server.key", keyPem)];
  await run("initdb", [
    "-D",
    data,
    "--username=watari",
    "--no-sync",
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
  ]);
  await own("data/pg_hba.conf", "hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\nlocal all all trust\n");
  const settings = [`port=${port}`, "listen_addresses=localhost", `unix_socket_directories=${folder}`, "max_connections=60", "fsync=off"];
  const options = [...settings, "ssl=on", `ssl_cert_file=${certificate}`, `ssl_key_file=${key}`].map((each) => `-c ${each}`).join(" ");
  const start = async (): Promise<void> =>
    void (await run("pg_ctl", ["start", "-D", data, "-w", "-l", join(folder, "log"), "-o", options]));
  const stop = async (mode: string): Promise<void> => void (await run("pg_ctl", ["stop", "-D", data, "-w", "-m", mode]));
  const signalAll = async (signal: NodeJS.Signals): Promise<void> => {
    const postmaster = Number((await readFile(join(data, "postmaster.pid"), "utf8")).split("\n", 1)[0]);
    for (const pid of [postmaster, ...(await childrenOf(postmaster))]) process.kill(pid, signal);
  };
  await start();
  return {
    port,
    dataFolder: data,
    caFile,
    passwordFile,
    createDatabase: async () => {
      const name = `test_${systemRandom.uuid().replaceAll("-", "")}`;
      await run("createdb", ["-h", folder, "-p", String(port), "-U", "watari", name]);
      return `postgres://watari@localhost:${port}/${name}`;
    },
    stop,
    start,
    restart: async () => {
      await stop("immediate");
      await start();
    },
    pause: async () => await signalAll("SIGSTOP"),
    resume: async () => await signalAll("SIGCONT"),
    [Symbol.asyncDispose]: async () => {
      await stop("immediate");
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function childrenOf(pid: number): Promise<readonly number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(async () => {
    const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    const stats = await Promise.all(pids.map(async (each) => await readFile(`/proc/${each}/stat`, "utf8").catch(() => "")));
    return stats
      .filter((stat) => stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] === String(pid))
      .map((stat) => stat.split(" ", 1)[0])
      .join(" ");
  });
  return text
    .split(" ")
    .filter((each) => each !== "")
    .map(Number);
}
