// For tests: builds VMware's simulator once into the cache and starts it on a free port.

import { createHash } from "node:crypto";
import { spawn } from "node:child_process";
import { access, mkdir, readFile, rename } from "node:fs/promises";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { connect } from "node:tls";
import { tryCommand } from "../../base/run-command.ts";

export const simulatorUser = "administrator@vsphere.local";
export const simulatorPassword = "Passw0rd! <&>";

const sourceFile = join(import.meta.dirname, "vcsim", "main.go");
const goPath = "/usr/share/gocode";

export interface VcenterSimulator extends AsyncDisposable {
  readonly port: number;
  /** SHA-256 of its certificate. */
  readonly thumbprint: string;
}

/** Why the simulator cannot be built here; undefined when it can. */
export async function simulatorMissing(): Promise<string | undefined> {
  const hasSource = await access(join(goPath, "src/github.com/vmware/govmomi")).then(
    () => true,
    () => false,
  );
  const go = await tryCommand("go", ["version"]).catch(() => undefined);
  return hasSource && go?.exitCode === 0 ? undefined : "needs Debian's golang-go and golang-github-vmware-govmomi-dev";
}

async function build(): Promise<string> {
  const cache = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
  const folder = join(cache, "test-vcsim");
  const program = join(
    folder,
    createHash("sha256")
      .update(await readFile(sourceFile))
      .digest("hex")
      .slice(0, 16),
  );
  const isThere = await access(program).then(
    () => true,
    () => false,
  );
  if (isThere) return program;
  await mkdir(folder, { recursive: true });
  const env = { ...process.env, GO111MODULE: "off", GOPATH: goPath, GOCACHE: join(cache, "go-build") };
  const fresh = `${program}.${process.pid}`;
  const result = await tryCommand("go", ["build", "-o", fresh, sourceFile], { env, timeoutMs: 600_000 });
  if (result.exitCode !== 0) throw new Error(`go build ended with ${result.exitCode}: ${result.stderr}`);
  await rename(fresh, program);
  return program;
}

export async function startVcenterSimulator(options: { readonly machineCount: number }): Promise<VcenterSimulator> {
  const child = spawn(await build(), ["-vm", String(options.machineCount)], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", () => reject(new Error("the simulator ended")));
  });
  const port = Number(new URL(line).port);
  return {
    port,
    thumbprint: await readThumbprint(port),
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

async function readThumbprint(port: number): Promise<string> {
  const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false });
  await new Promise<void>((resolve, reject) => {
    socket.once("secureConnect", () => resolve());
    socket.once("error", reject);
  });
  const der = socket.getPeerX509Certificate()?.raw ?? Buffer.alloc(0);
  socket.destroy();
  return createHash("sha256").update(der).digest("hex");
}
