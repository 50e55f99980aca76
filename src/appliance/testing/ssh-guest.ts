// For tests: a guest behind a real OpenSSH server, in a mount namespace of its own, so that nothing of this machine changes.

import { spawn, type ChildProcess } from "node:child_process";
import { access, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { runCommand, tryCommand } from "../../base/run-command.ts";

const cacheFolder = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
const serverPaths = ["/usr/sbin/sshd", join(cacheFolder, "sshd/usr/sbin/sshd")];

export const guestPassword = "right horse 'battery'";

/** Path of sshd, unpacked into the cache from Debian's package when it is not installed; else why it is missing. */
export async function findSshServer(): Promise<{ readonly path: string } | { readonly missing: string }> {
  if (process.getuid?.() !== 0) return { missing: "needs root" };
  for (const path of serverPaths) if (await isThere(path)) return { path };
  const folder = await mkdtemp(join(tmpdir(), "watari-sshd-"));
  try {
    const got = await tryCommand("apt-get", ["download", "openssh-server"], { cwd: folder }).catch(() => undefined);
    if (got?.exitCode === 0) await tryCommand("sh", ["-c", `dpkg -x openssh-server_*.deb ${cacheFolder}/sshd`], { cwd: folder });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  for (const path of serverPaths) if (await isThere(path)) return { path };
  return { missing: "needs Debian's openssh-server" };
}

export interface SshGuest extends AsyncDisposable {
  readonly port: number;
  /** Runs a script inside the guest, as root. */
  inside(script: string): Promise<string>;
  /** From now on the server shows another host key. */
  changeHostKey(): Promise<void>;
}

/** A guest with root by password and an account "guest" that may use sudo with its password where sudo is installed. */
export async function startSshGuest(serverPath: string): Promise<SshGuest> {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-guest-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  await writeGuestFiles(folder);
  const holder = await openNamespace(folder);
  const enter = ["-t", String(holder.pid), "-m", "--"];
  const inside = async (script: string): Promise<string> => (await runCommand("nsenter", [...enter, "sh", "-c", script])).stdout;
  cleanup.defer(async () => {
    await inside("systemctl disable --now watari-agent").catch(() => undefined); // Nothing may have been installed.
    holder.kill("SIGKILL");
  });
  const server = createServer((socket) => serveSsh(socket, ["nsenter", ...enter, serverPath, "-i", "-f", join(folder, "sshd_config")]));
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  cleanup.defer(async () => await closeServer(server));
  const owned = cleanup.move();
  return {
    port: (server.address() as AddressInfo).port, // A TCP server has a port.
    inside,
    changeHostKey: async () => await createHostKey(folder),
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}

async function writeGuestFiles(folder: string): Promise<void> {
  const write = async (name: string, text: string, mode = 0o644): Promise<void> => await writeFile(join(folder, name), text, { mode });
  const hash = (await runCommand("openssl", ["passwd", "-6", "-stdin"], { stdin: guestPassword })).stdout.trim();
  await write("passwd", "root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nguest:x:1000:1000::/tmp:/bin/sh\n");
  await write("group", "root:x:0:\nnogroup:x:65534:\nguest:x:1000:\n");
  await write("shadow", `root:${hash}:19000:0:99999:7:::\nsshd:!:19000::::::\nguest:${hash}:19000:0:99999:7:::\n`, 0o600);
  await write("machine-id", "0123456789abcdef0123456789abcdef\n");
  await write("comm", "systemd\n");
  await write("systemctl", systemctlDouble, 0o755);
  await write(
    "sshd_config",
    `HostKey ${folder}/host_key\nPermitRootLogin yes\nPasswordAuthentication yes\nUsePAM no\nStrictModes no\nAuthorizedKeysFile ${folder}/authorized_keys\nLogLevel QUIET\n`,
  );
  await mkdir(join(folder, "units"));
  await createHostKey(folder);
}

async function createHostKey(folder: string): Promise<void> {
  await rm(join(folder, "host_key"), { force: true });
  await rm(join(folder, "host_key.pub"), { force: true });
  await runCommand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(folder, "host_key")]);
}

/** A process that holds the guest's own view of the files. */
async function openNamespace(folder: string): Promise<ChildProcess & { readonly pid: number }> {
  const script = `set -e
for name in passwd group shadow machine-id; do test -e /etc/$name || : > /etc/$name; mount --bind ${folder}/$name /etc/$name; done
mount --bind ${folder}/comm /proc/1/comm
mount --bind ${folder}/systemctl "$(command -v systemctl || echo /usr/bin/systemctl)"
mount --bind ${folder}/units /etc/systemd/system
mount -t tmpfs none /opt
mkdir -p /run/sshd
mount -t tmpfs none /var/lib
mount -t tmpfs none /run
mkdir -p /run/sshd
echo ready
exec sleep infinity`;
  const child = spawn("unshare", ["--mount", "--propagation", "private", "--", "sh", "-c", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", () => resolve());
    child.once("exit", (code) => reject(new Error(`the guest's namespace ended with ${code}`)));
  });
  if (child.pid === undefined) throw new Error("the guest's namespace has no process");
  return Object.assign(child, { pid: child.pid });
}

function serveSsh(socket: Socket, [program = "", ...args]: readonly string[]): void {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "ignore"] });
  socket.on("error", () => child.kill());
  socket.on("close", () => child.kill());
  child.stdin.on("error", () => socket.destroy());
  socket.pipe(child.stdin);
  child.stdout.pipe(socket);
}

async function closeServer(server: Server): Promise<void> {
  await new Promise<void>((resolve) => void server.close(() => resolve()));
}

/** Does for one unit what systemd does: starts ExecStart, ends it, tells whether it lives. */
const systemctlDouble = `#!/bin/sh
pid=/run/watari-agent.pid
unit=/etc/systemd/system/watari-agent.service
case "$1 $2" in
  "enable --now" | "start watari-agent") $(sed -n 's/^ExecStart=//p' $unit) >/run/agent.log 2>&1 </dev/null & echo $! > $pid ;;
  "stop watari-agent") test ! -e $pid || kill $(cat $pid); rm -f $pid ;;
  "disable --now") test -e $pid && kill $(cat $pid); rm -f $pid; test -e $unit ;;
  "is-active watari-agent") test -e $pid && kill -0 $(cat $pid) 2>/dev/null && echo active || { echo inactive; exit 3; } ;;
esac
`;

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** For assertions: what an installation would leave. */
export const installedPaths =
  "ls -d /opt/watari-agent /opt/.watari-agent.fresh /var/lib/watari-agent /etc/systemd/system/watari-agent.service 2>/dev/null || true";
