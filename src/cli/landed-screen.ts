// `watari landed screen`: the screen of a landed machine as a picture, or at a local port for a VNC viewer.

import { createServer, isIP, type AddressInfo, type Server, type Socket } from "node:net";
import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { openConsole, type MachinePath } from "./landed-console.ts";
import { printAnswer, say } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

interface ScreenOptions {
  readonly json?: boolean;
  readonly profile?: string;
  readonly out?: string;
  readonly vncListen?: { readonly host: string; readonly port: number };
}

const diagnosticsShape = z.object({ consoleScreenshotBlobUri: z.string() });
/** A viewer that takes nothing more is cut. */
const unreadBytesMax = 64 << 20;

export function registerScreen(noun: Command, machinePath: MachinePath): void {
  withHubOptions(noun.command("screen").argument("<name>"))
    .description("the screen of a landed machine: --out for a picture, --vnc-listen for a viewer")
    .option("--out <file>", "write it as PNG")
    .option("--vnc-listen <address:port>", "serve it to one VNC viewer at a time, as 127.0.0.1:0; ends with Ctrl-C", parseListen)
    .action(async (name: string, options: ScreenOptions) => {
      const { out, vncListen } = options;
      if ((out === undefined) === (vncListen === undefined))
        throw new Fault("InputInvalid", "could not show the screen: give one of --out and --vnc-listen");
      await using session = await openSession(options);
      const path = machinePath(session.arm.groupPath, name);
      if (out !== undefined) {
        const bytes = await savePicture(session.arm, path, out);
        printAnswer(session.style, { name, out, bytes }, () => `the screen of ${name} is in ${out}`);
      } else if (vncListen !== undefined) {
        await using viewers = await listenForViewers(session.arm, path, vncListen);
        const { address, port } = viewers.server.address() as AddressInfo; // A listening TCP server's address has this form.
        printAnswer(
          session.style,
          { name, address, port },
          () => `the screen of ${name} is at ${address}:${port} for a VNC viewer; Ctrl-C ends`,
        );
        await new Promise<void>((resolve) => {
          for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolve());
        });
      }
    });
}

function parseListen(text: string): { readonly host: string; readonly port: number } {
  const [, host = "", port = ""] = /^\[?([0-9a-f.:]+)\]?:(\d{1,5})$/.exec(text) ?? [];
  const isLoopback = host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
  if (isLoopback && Number(port) <= 65_535) return { host, port: Number(port) };
  throw new Fault("InputInvalid", `could not listen at ${text}: viewers are served on this machine alone, without a password`, {
    action: "name a loopback address and a port, as 127.0.0.1:0",
  });
}

async function savePicture(arm: ArmClient, path: string, out: string): Promise<number> {
  const { consoleScreenshotBlobUri } = diagnosticsShape.parse(await arm.change("POST", `${path}/retrieveBootDiagnosticsData`, {}));
  const pieces: Uint8Array[] = [];
  await arm.download(consoleScreenshotBlobUri, async (piece) => void pieces.push(piece));
  const picture = Buffer.concat(pieces);
  await writeFile(out, picture);
  return picture.length;
}

async function listenForViewers(
  arm: ArmClient,
  path: string,
  where: { readonly host: string; readonly port: number },
): Promise<{ readonly server: Server } & AsyncDisposable> {
  let current: Socket | undefined;
  const server = createServer((viewer) => {
    viewer.on("error", () => viewer.destroy());
    if (current !== undefined) return void viewer.destroy();
    current = viewer;
    viewer.once("close", () => (current = undefined));
    serveViewer(arm, path, viewer).catch((error: unknown) => {
      say(`could not serve the viewer: ${error instanceof Error ? error.message : String(error)}`);
      viewer.destroy();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      reject(new Fault("ListenFailed", `could not listen at ${where.host}:${where.port}`, { cause }));
    });
    server.listen(where, resolve);
  });
  return {
    server,
    [Symbol.asyncDispose]: async () => {
      current?.destroy();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}

/** RFB as it comes, both ways. */
async function serveViewer(arm: ArmClient, path: string, viewer: Socket): Promise<void> {
  viewer.pause();
  const { url } = await openConsole(arm, path, { kind: "screen", access: "write" });
  const socket = arm.dial(url, "binary");
  socket.addEventListener("open", () => viewer.resume());
  socket.addEventListener("error", () => viewer.destroy());
  socket.addEventListener("close", ({ reason }) => {
    if (reason !== "") say(`the screen was closed: ${reason}`);
    viewer.end();
  });
  socket.addEventListener("message", ({ data }) => {
    if (data instanceof ArrayBuffer) viewer.write(new Uint8Array(data));
    if (viewer.writableLength > unreadBytesMax) viewer.destroy();
  });
  viewer.on("data", (bytes) => socket.send(bytes));
  viewer.once("close", () => socket.close());
}
