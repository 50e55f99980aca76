// What data-path.ts is measured against: compressors and copiers of the field, each in the way that suits it best.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { access, mkdir, open } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism } from "node:os";
import { delimiter, join } from "node:path";
import { systemClock as clock } from "../src/base/clock.ts";
import { runCommand, tryCommand } from "../src/base/run-command.ts";
import { measureChildren, runToEnd, stopChild, type Measured } from "./measured.ts";

export interface Peer {
  readonly name: string;
  readonly programs: readonly string[];
  measure(image: string, folder: string): Promise<Measured>;
}

export const peers: readonly Peer[] = [
  { name: "zstd -1 -T0 to nowhere", programs: ["zstd"], measure: async (image) => await measureZstd(image) },
  { name: "nbdcopy over TLS to nowhere", programs: ["nbdcopy", "nbdkit", "nbdinfo", "openssl"], measure: measureNbdcopy },
  {
    name: "qemu-img convert -c (zstd)",
    programs: ["qemu-img"],
    measure: async (image, folder) => {
      const target = join(folder, "peer.qcow2");
      const options = ["-c", "-W", "-m", "8", "-O", "qcow2", "-o", "compression_type=zstd"];
      return await measureChildren(
        async () => await runToEnd({ command: "qemu-img", args: ["convert", "-f", "raw", ...options, image, target] }),
      );
    },
  },
];

/** The first program that is not on the path; undefined when all are. */
export async function missingProgram(programs: readonly string[]): Promise<string | undefined> {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  for (const program of programs) {
    const found = await Promise.all(
      folders.map(
        async (folder) =>
          await access(join(folder, program)).then(
            () => true,
            () => false,
          ),
      ),
    );
    if (!found.includes(true)) return program;
  }
  return undefined;
}

async function measureZstd(image: string): Promise<Measured> {
  await using file = await open(image, "r");
  const args = ["-1", `-T${availableParallelism()}`, "-q", "-c"];
  return await measureChildren(async () => await runToEnd({ command: "zstd", args, stdin: file.fd }));
}

/** Bytes that `zstd -1` makes of a file. */
export async function compressedSize(image: string): Promise<number> {
  await using file = await open(image, "r");
  const child = spawn("zstd", ["-1", `-T${availableParallelism()}`, "-q", "-c"], { stdio: [file.fd, "pipe", "ignore"] });
  let bytes = 0;
  for await (const chunk of child.stdout ?? []) bytes += (chunk as Buffer).length; // A stream without an encoding gives bytes.
  return bytes;
}

async function measureNbdcopy(image: string, folder: string): Promise<Measured> {
  const certificates = join(folder, "certificates");
  await makeCertificates(certificates);
  const port = await freePort();
  const { size } = await (async () => {
    await using file = await open(image, "r");
    return await file.stat();
  })();
  const uri = `nbds://localhost:${port}/?tls-certificates=${encodeURIComponent(certificates)}`;
  const settings = ["-f", "-i", "127.0.0.1", "-p", String(port), "--tls=require", `--tls-certificates=${certificates}`];
  return await measureServed(uri, { command: "nbdkit", args: [...settings, "null", `size=${size}`] }, async () => {
    await runToEnd({ command: "nbdcopy", args: [image, uri] });
  });
}

/** Wall time of `job` alone; processor time also of the server that it talks to. */
async function measureServed(
  uri: string,
  server: { readonly command: string; readonly args: readonly string[] },
  job: () => Promise<void>,
): Promise<Measured> {
  let wallSeconds = 0;
  const { cpuSeconds } = await measureChildren(async () => {
    const child = spawn(server.command, server.args, { stdio: "ignore" });
    try {
      await waitForNbd(uri, child);
      ({ wallSeconds } = await measureChildren(job));
    } finally {
      await stopChild(child);
    }
  });
  return { wallSeconds, cpuSeconds };
}

/** Until the server answers. Throws when it ended instead. */
export async function waitForNbd(uri: string, server: ChildProcess): Promise<void> {
  while ((await tryCommand("nbdinfo", ["--size", uri])).exitCode !== 0) {
    if (server.exitCode !== null) throw new Error(`the NBD server ended with ${server.exitCode}`);
    await clock.sleep(20);
  }
}

/** One self-signed certificate that is its own authority, in the files that GnuTLS programs look for. */
export async function makeCertificates(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const [key, certificate] = [join(folder, "server-key.pem"), join(folder, "server-cert.pem")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  await runCommand("openssl", ["req", ...kind, ...subject, "-keyout", key, "-out", certificate]);
  await runCommand("cp", [certificate, join(folder, "ca-cert.pem")]);
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) throw new Error("no free port");
  return address.port;
}
