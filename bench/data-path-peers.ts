// What data-path.ts is measured against: compressors and copiers of the field, each in the way that suits it best.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { access, mkdir, open, stat, truncate, writeFile } from "node:fs/promises";
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

const nbdPrograms = ["nbdcopy", "nbdkit", "nbdinfo", "openssl"];

/** Names of one program in several settings begin alike; what is fastest of them is its best. */
export const peers: readonly Peer[] = [
  { name: "zstd -1 -T0 to nowhere", programs: ["zstd"], measure: async (image) => await measureZstd(image) },
  {
    name: "nbdcopy over TLS to nowhere",
    programs: nbdPrograms,
    measure: async (image, folder) =>
      await measureNbdcopy(image, folder, { server: (target) => nbdkit(target, ["null", `size=${target.sizeBytes}`]) }),
  },
  {
    name: "nbdcopy over TLS to a file, nbdkit",
    programs: nbdPrograms,
    measure: async (image, folder) =>
      await measureNbdcopy(image, folder, { server: (target) => nbdkit(target, ["file", target.file]), args: ["--connections=8"] }),
  },
  {
    name: "nbdcopy over TLS to a file, nbdkit, flushed",
    programs: nbdPrograms,
    measure: async (image, folder) =>
      await measureNbdcopy(image, folder, {
        server: (target) => nbdkit(target, ["file", target.file]),
        args: ["--connections=8", "--flush"],
      }),
  },
  {
    name: "nbdcopy over TLS to a file, qemu-nbd without page cache",
    programs: [...nbdPrograms, "qemu-nbd"],
    measure: async (image, folder) => await measureNbdcopy(image, folder, { server: qemuNbd, args: ["--request-size=1048576"] }),
  },
  { name: "qemu-img convert -c (zstd)", programs: ["qemu-img"], measure: async (...job) => await measureConvert(...job, []) },
  {
    name: "qemu-img convert -c (zstd), clusters of 1 MiB, without page cache",
    programs: ["qemu-img"],
    measure: async (...job) => await measureConvert(...job, ["-t", "none", "-o", "cluster_size=1M"]),
  },
];

async function measureConvert(image: string, folder: string, mode: readonly string[]): Promise<Measured> {
  const options = ["-c", "-W", "-m", "8", "-O", "qcow2", "-o", "compression_type=zstd", ...mode];
  const args = ["convert", "-f", "raw", ...options, image, join(folder, "peer.qcow2")];
  return await measureChildren(async () => await runToEnd({ command: "qemu-img", args }));
}

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

interface NbdTarget {
  readonly port: number;
  readonly certificates: string;
  readonly sizeBytes: number;
  /** Empty and as large as the image. */
  readonly file: string;
}

interface Server {
  readonly command: string;
  readonly args: readonly string[];
}

function nbdkit({ port, certificates }: NbdTarget, plugin: readonly string[]): Server {
  const settings = ["-f", "-i", "127.0.0.1", "-p", String(port), "--tls=require", `--tls-certificates=${certificates}`];
  return { command: "nbdkit", args: [...settings, ...plugin] };
}

function qemuNbd({ port, certificates, file }: NbdTarget): Server {
  const tls = ["--object", `tls-creds-x509,id=tls,endpoint=server,dir=${certificates},verify-peer=no`, "--tls-creds=tls"];
  const settings = ["-t", "-f", "raw", "-b", "127.0.0.1", "-p", String(port), "-e", "8", "--cache=none", "--aio=native"];
  return { command: "qemu-nbd", args: [...settings, ...tls, file] };
}

async function measureNbdcopy(
  image: string,
  folder: string,
  { server, args = [] }: { readonly server: (target: NbdTarget) => Server; readonly args?: readonly string[] },
): Promise<Measured> {
  const certificates = join(folder, "certificates");
  await makeCertificates(certificates);
  const port = await freePort();
  const { size: sizeBytes } = await stat(image);
  const file = join(folder, "peer.raw");
  await writeFile(file, "");
  await truncate(file, sizeBytes);
  const uri = `nbds://localhost:${port}/?tls-certificates=${encodeURIComponent(certificates)}`;
  return await measureServed(uri, server({ port, certificates, sizeBytes, file }), async () => {
    await runToEnd({ command: "nbdcopy", args: [...args, image, uri] });
  });
}

/** Wall time of `job` alone; processor time also of the server that it talks to. */
async function measureServed(uri: string, server: Server, job: () => Promise<void>): Promise<Measured> {
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

/** An authority and a server's certificate of it, in the files that GnuTLS programs look for; QEMU takes no certificate that is its own authority. */
export async function makeCertificates(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const pathOf = (name: string): string => join(folder, `${name}.pem`);
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  const files = (name: string): string[] => ["-keyout", pathOf(`${name}-key`), "-out", pathOf(`${name}-cert`)];
  await runCommand("openssl", ["req", ...kind, "-subj", "/CN=authority", ...files("ca")]);
  const issuer = ["-CA", pathOf("ca-cert"), "-CAkey", pathOf("ca-key")];
  const extensions = ["subjectAltName=DNS:localhost,IP:127.0.0.1", "basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth"];
  const subject = ["-subj", "/CN=localhost", ...extensions.flatMap((extension) => ["-addext", extension])];
  await runCommand("openssl", ["req", ...kind, ...issuer, ...subject, ...files("server")]);
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
