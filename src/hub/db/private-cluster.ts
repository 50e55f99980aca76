// A private PostgreSQL cluster in the hub's state folder: Debian's binaries, a unix socket only, durable, adopted when it still runs.

import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { access, chmod, chown, mkdir, open, readdir, readFile, stat } from "node:fs/promises";
import { userInfo } from "node:os";
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { systemClock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { runCommand, tryCommand, type CommandResult } from "../../base/run-command.ts";
import { withoutRights } from "../../base/without-rights.ts";
import { Fault } from "../../contract/errors.ts";

export interface PrivateCluster extends AsyncDisposable {
  /** Folder of the unix socket; `host` of a connection. */
  readonly socketFolder: string;
  readonly user: string;
  readonly database: string;
  /** It ran already: another program may be using it. */
  readonly wasRunning: boolean;
  /** Of the server's first process, the one that starts the others. Cheap: may be asked often. */
  isAlive(): Promise<boolean>;
  /** Starts a server that died; what it had committed is there. No fault when it runs. */
  start(): Promise<void>;
  /** Stops the server cleanly; a second call is fine. */
  stop(): Promise<void>;
}

export interface PrivateClusterOptions {
  readonly stateDir: string;
  readonly log: Log;
  /**
   * How long the server lives when this program is killed. "on its own", unless told: until it is adopted or the machine stops.
   * "as this program": the kernel ends it too, for state that nobody will come back to.
   */
  readonly lives?: "on its own" | "as this program";
}

const binaryRoot = "/usr/lib/postgresql";
const databaseUser = "watari";
/** sun_path holds 108 bytes with its final zero (unix(7)). */
const socketPathBytesMax = 107;
const socketFile = ".s.PGSQL.5432";
const startSecondsMax = 60;

/** The account that the server runs as; PostgreSQL refuses root. */
interface ServerAccount {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  /** Words before each command that make it run as this account. */
  readonly prefix: readonly string[];
}

/** Starts the cluster, or adopts the one that a killed hub left running. Ready for connections on return. */
export async function startPrivateCluster(options: PrivateClusterOptions): Promise<PrivateCluster> {
  const { stateDir, log } = options;
  const binaries = await findBinaries();
  const account = await chooseAccount();
  const folder = join(stateDir, "pg");
  const dataFolder = join(folder, "data");
  const socketFolder = join(folder, "s");
  refuseLongSocketPath(socketFolder);
  await prepareFolders({ stateDir, folder, socketFolder, account });
  const run = (program: string, args: readonly string[]): Promise<CommandResult> => {
    const [first, ...rest] = [...account.prefix, join(binaries, program), ...args];
    return tryCommand(first ?? program, rest, { cwd: folder, timeoutMs: startSecondsMax * 1000, env: serverEnvironment });
  };
  if (!(await exists(join(dataFolder, "watari-ready")))) await initialise({ dataFolder, account, run });
  const wasRunning = await isRunning({ dataFolder, socketFolder, run });
  const how = { dataFolder, socketFolder, folder, run, log, binaries, account, lives: options.lives ?? "on its own" } as const;
  const start = async (): Promise<void> => await startServer(how);
  if (wasRunning) log.info("database adopted", { dataFolder });
  else await start();
  await ensureDatabase({ socketFolder, run });
  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    const result = await run("pg_ctl", ["stop", "-D", dataFolder, "-m", "fast", "-w"]);
    if (result.exitCode === 0) log.info("database stopped", { dataFolder });
  };
  const stopOnce = (): Promise<void> => (stopped ??= stop());
  return {
    ...{ socketFolder, user: databaseUser, database: databaseUser, wasRunning, stop: stopOnce, [Symbol.asyncDispose]: stopOnce },
    isAlive: async () => await isServerAlive(dataFolder),
    start: async () => {
      if (!(await isRunning({ dataFolder, socketFolder, run }))) await start();
    },
  };
}

/** The process that wrote postmaster.pid, by its number and its name: a number may have been given to another program since. */
async function isServerAlive(dataFolder: string): Promise<boolean> {
  const text = await readFile(join(dataFolder, "postmaster.pid"), "utf8").catch(() => undefined); // An orderly stop removes it.
  const pid = Number(text?.split("\n", 1)[0]);
  if (!Number.isInteger(pid) || pid <= 1) return false;
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined); // Gone.
  return stat !== undefined && stat.includes("(postgres)") && !/\) [ZX] /.test(stat);
}

/** Where the cluster of a state folder listens while it runs. */
export function privateAddress(stateDir: string): {
  readonly kind: "socket";
  readonly socketFolder: string;
  readonly user: string;
  readonly database: string;
} {
  return { kind: "socket", socketFolder: join(stateDir, "pg", "s"), user: databaseUser, database: databaseUser };
}

type Run = (program: string, args: readonly string[]) => Promise<CommandResult>;

const serverEnvironment = { PATH: "/usr/bin:/bin", LC_ALL: "C.UTF-8", TZ: "UTC" };

/** The folder of the newest PostgreSQL of this machine. */
export async function findBinaries(): Promise<string> {
  const versions = await readdir(binaryRoot).catch(() => [] as string[]); // No folder means no package.
  const newest = versions.filter((version) => /^\d+$/.test(version)).sort((left, right) => Number(right) - Number(left));
  for (const version of newest) if (await exists(join(binaryRoot, version, "bin", "initdb"))) return join(binaryRoot, version, "bin");
  throw new Fault("MissingProgram", "could not start the hub's database: PostgreSQL is not installed", {
    evidence: { package: "postgresql", lookedIn: binaryRoot },
    action: "apt-get install postgresql",
  });
}

/** Who runs the server's programs. */
export async function chooseAccount(): Promise<ServerAccount> {
  const self = userInfo();
  if (self.uid !== 0) return { name: self.username, uid: self.uid, gid: self.gid, prefix: [...withoutRights, "--"] };
  const passwd = await readFile("/etc/passwd", "utf8");
  const fields = passwd
    .split("\n")
    .find((line) => line.startsWith("postgres:"))
    ?.split(":");
  const uid = Number(fields?.[2]);
  const gid = Number(fields?.[3]);
  if (!Number.isInteger(uid) || !Number.isInteger(gid))
    throw new Fault("MissingProgram", "could not start the hub's database: the user postgres does not exist", {
      evidence: { package: "postgresql" },
      action: "apt-get install postgresql",
    });
  return { name: "postgres", uid, gid, prefix: ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--init-groups", "--"] };
}

function refuseLongSocketPath(socketFolder: string): void {
  const path = join(socketFolder, socketFile);
  if (Buffer.byteLength(path) <= socketPathBytesMax) return;
  throw new Fault("InputInvalid", "could not start the hub's database: the state folder's path is too long for a unix socket", {
    evidence: { path, bytesMax: socketPathBytesMax },
    action: "choose a state folder with a shorter path",
  });
}

/** The server's account must be able to walk to its folders; only the state folder itself is opened for that. */
async function prepareFolders(wanted: {
  readonly stateDir: string;
  readonly folder: string;
  readonly socketFolder: string;
  readonly account: ServerAccount;
}): Promise<void> {
  await mkdir(wanted.socketFolder, { recursive: true });
  if (wanted.account.uid !== process.getuid?.()) {
    await chmod(wanted.stateDir, 0o711);
    for (const path of [wanted.folder, wanted.socketFolder]) await chown(path, wanted.account.uid, wanted.account.gid);
    for (let path = dirname(wanted.stateDir); ; path = dirname(path)) {
      if (((await stat(path)).mode & 0o001) === 0)
        throw new Fault("InputInvalid", "could not start the hub's database: its account cannot reach the state folder", {
          evidence: { account: wanted.account.name, closedFolder: path },
          action: `chmod o+x ${path}, or choose another state folder`,
        });
      if (path === dirname(path)) break;
    }
  }
  for (const path of [wanted.folder, wanted.socketFolder]) await chmod(path, 0o700);
}

/** The file watari-ready is written last: a cluster whose making was cut is made again. */
async function initialise(wanted: { readonly dataFolder: string; readonly account: ServerAccount; readonly run: Run }): Promise<void> {
  const { dataFolder, account, run } = wanted;
  await runCommand("rm", ["-rf", "--", dataFolder]);
  const made = await run("initdb", [
    "-D",
    dataFolder,
    `--username=${databaseUser}`,
    "--data-checksums",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--auth=reject",
  ]);
  if (made.exitCode !== 0)
    throw new Fault("Internal", "could not make the hub's database", { evidence: { said: made.stderr.trim().slice(-2000) } });
  const own = async (name: string, text: string): Promise<void> => {
    await writeFileAtomic(join(dataFolder, name), text);
    await chown(join(dataFolder, name), account.uid, account.gid);
  };
  const users = [...new Set([userInfo().username, account.name])];
  await own("pg_hba.conf", "local all all peer map=watari\n");
  await own("pg_ident.conf", users.map((user) => `watari ${user} ${databaseUser}\n`).join(""));
  await own("watari-ready", "1\n");
}

/** True: it answers. False: it is gone. A server between the two (starting, or just killed) is waited for. */
async function isRunning(wanted: { readonly dataFolder: string; readonly socketFolder: string; readonly run: Run }): Promise<boolean> {
  const { dataFolder, socketFolder, run } = wanted;
  const endMs = systemClock.monotonicMs() + startSecondsMax * 1000;
  for (;;) {
    if ((await run("pg_ctl", ["status", "-D", dataFolder])).exitCode !== 0) return false;
    const probe = await run("pg_isready", ["-h", socketFolder, "-d", "postgres"]);
    if (probe.exitCode === 0) return true;
    if (systemClock.monotonicMs() > endMs)
      throw new Fault("DatabaseUnavailable", "could not adopt the hub's database: it runs and does not answer", {
        evidence: { dataFolder, said: probe.stdout.trim() },
      });
    await systemClock.sleep(50);
  }
}

interface ServerStart {
  readonly dataFolder: string;
  readonly socketFolder: string;
  readonly folder: string;
  readonly run: Run;
  readonly log: Log;
  readonly binaries: string;
  readonly account: ServerAccount;
  readonly lives: "on its own" | "as this program";
}

async function startServer(wanted: ServerStart): Promise<void> {
  const { dataFolder, folder, run, log } = wanted;
  const settings = settingsFor(wanted.socketFolder);
  const logFile = join(folder, "server.log");
  const wait = ["-D", dataFolder, "-w", "-t", String(startSecondsMax)];
  const started =
    wanted.lives === "on its own"
      ? await run("pg_ctl", ["start", ...wait, "-l", logFile, "-o", settings.join(" ")])
      : await startTied({ ...wanted, settings, logFile });
  if (started.exitCode === 0) {
    log.info("database started", { dataFolder });
    return;
  }
  const said = await readFile(logFile, "utf8").catch(() => started.stderr); // Without a log file pg_ctl's own words are all there is.
  throw new Fault("Internal", "could not start the hub's database", { evidence: { logFile, said: said.trim().slice(-2000) } });
}

function settingsFor(socketFolder: string): readonly string[] {
  return [
    "listen_addresses=",
    `unix_socket_directories=${socketFolder}`,
    "unix_socket_permissions=0700",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "max_connections=60",
    "timezone=UTC",
    "log_timezone=UTC",
    "jit=off",
    // What a busy hub reads again and again fits; touched only as it is used.
    "shared_buffers=256MB",
    // Old segments of the log are used again in place of being made, which holds up every commit meanwhile.
    "min_wal_size=256MB",
  ].map((setting) => `-c ${setting}`);
}

/** A child that gets SIGINT, its word for a fast stop, in the moment in which this program is gone. */
async function startTied(
  wanted: ServerStart & { readonly settings: readonly string[]; readonly logFile: string },
): Promise<{ readonly exitCode: number; readonly stderr: string }> {
  const { account, binaries, dataFolder, socketFolder, folder, run } = wanted;
  const settings = wanted.settings.flatMap((setting) => setting.split(" "));
  const [program = "", ...args] = [...tiedPrefix(account), join(binaries, "postgres"), "-D", dataFolder, ...settings];
  await using logFile = await open(wanted.logFile, "a", 0o600);
  await logFile.chown(account.uid, account.gid);
  const child = spawn(program, args, { cwd: folder, stdio: ["ignore", logFile.fd, logFile.fd], env: serverEnvironment });
  const endings: string[] = [];
  child.once("error", (error) => endings.push(error.message));
  child.once("exit", (code) => endings.push(`ended with ${code}`));
  child.unref();
  const endMs = systemClock.monotonicMs() + startSecondsMax * 1000;
  while (endings.length === 0 && systemClock.monotonicMs() < endMs) {
    if ((await run("pg_isready", ["-h", socketFolder, "-d", "postgres"])).exitCode === 0) return { exitCode: 0, stderr: "" };
    await systemClock.sleep(20);
  }
  child.kill("SIGKILL");
  return { exitCode: 1, stderr: endings[0] ?? "it did not answer in time" };
}

/** setpriv asks the kernel for the signal after it has become the account: a change of account forgets it. */
function tiedPrefix({ prefix }: ServerAccount): readonly string[] {
  return prefix.flatMap((word) => (word === "--" ? [...tie, word] : [word]));
}

const tie = ["--pdeathsig", "INT"];

async function ensureDatabase(wanted: { readonly socketFolder: string; readonly run: Run }): Promise<void> {
  const made = await wanted.run("createdb", ["-h", wanted.socketFolder, "-U", databaseUser, databaseUser]);
  if (made.exitCode === 0 || made.stderr.includes("already exists")) return;
  throw new Fault("Internal", "could not make the hub's database", { evidence: { said: made.stderr.trim().slice(-2000) } });
}

async function exists(path: string): Promise<boolean> {
  return await access(path, constants.F_OK).then(
    () => true,
    () => false,
  );
}
