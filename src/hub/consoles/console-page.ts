// The hub's page with a machine's serial console: xterm.js over the WebSocket that a ticket in the address opens. The ticket is behind "#", so no server sees it.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import { closeCodes } from "./console-session.ts";
import { consolePrefix, ownProtocol } from "./consoles.ts";

export const consolePagePath = "/console";

/** Only from here, and xterm.js sets its styles by script. */
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Serial console</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${consolePagePath}/xterm.css">
<style>body { margin: 0; background: #000; color: #ddd; font-family: sans-serif } #status { padding: 4px 8px; background: #222 }</style>
</head>
<body>
<div id="status" role="status">…</div>
<div id="terminal"></div>
<script src="${consolePagePath}/xterm.js"></script>
<script src="${consolePagePath}/console.js"></script>
</body>
</html>
`;

/** After a line that broke it comes back by the last ticket that it was told, for as long as that is good. */
const script = `"use strict";
const status = document.getElementById("status");
const terminal = new Terminal({ cols: 100, rows: 30, scrollback: 5000 });
terminal.open(document.getElementById("terminal"));
const final = new Set(${JSON.stringify(Object.values(closeCodes))});
let ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
history.replaceState(null, "", location.pathname);
let socket;
const encoder = new TextEncoder();
terminal.onData((text) => { if (socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text)); });
terminal.onBinary((text) => { if (socket?.readyState === WebSocket.OPEN) socket.send(Uint8Array.from(text, (each) => each.charCodeAt(0))); });
function say(text) { status.textContent = text; }
function open(attempt) {
  if (!ticket) { say("No ticket: open this page by the address that openConsole or watari landed console --browser gives."); return; }
  const used = ticket;
  ticket = undefined;
  let opened = false;
  say("Connecting…");
  socket = new WebSocket("wss://" + location.host + ${JSON.stringify(`${consolePrefix}serial?ticket=`)} + encodeURIComponent(used), ${JSON.stringify(ownProtocol)});
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { opened = true; terminal.reset(); };
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") { terminal.write(new Uint8Array(data)); return; }
    const told = JSON.parse(data);
    if (told.kind === "ticket") {
      ticket = told.ticket;
      terminal.options.disableStdin = told.access === "read";
      say(told.access === "read" ? "Connected; this line only reads." : "Connected.");
    }
  };
  socket.onclose = ({ code, reason }) => {
    if (final.has(code) || (!opened && !ticket && attempt >= 5)) { say("Closed: " + (reason || "open the console again")); return; }
    if (!opened) ticket ??= used;
    say("The line broke; coming back…");
    setTimeout(() => open(opened ? 1 : attempt + 1), Math.min(10000, 500 * 2 ** attempt));
  };
}
open(0);
`;

const files: Readonly<Record<string, { readonly type: string; readonly read: () => Promise<string> }>> = {
  "": { type: "text/html; charset=utf-8", read: async () => page },
  "/console.js": { type: "text/javascript; charset=utf-8", read: async () => script },
  "/xterm.js": { type: "text/javascript; charset=utf-8", read: async () => await readLibrary("xterm.js") },
  "/xterm.css": { type: "text/css; charset=utf-8", read: async () => await readLibrary("xterm.css") },
};

/** Whoever asks gets it: it tells nothing, and opens nothing without a ticket. */
export function registerConsolePage(face: FastifyInstance): void {
  for (const [name, { type, read }] of Object.entries(files))
    face.get(`${consolePagePath}${name}`, async (_request, reply) => {
      void reply.header("content-security-policy", policy).header("referrer-policy", "no-referrer");
      return await reply.type(type).send(await read());
    });
}

const libraryFiles = { "xterm.js": "lib/xterm.js", "xterm.css": "css/xterm.css" } as const;

/** A package holds them beside the program, a checkout where npm put them. */
async function readLibrary(name: keyof typeof libraryFiles): Promise<string> {
  const packaged = await readFile(join(import.meta.dirname, "console-ui", name), "utf8").catch(() => undefined); // A checkout has none.
  return packaged ?? (await readFile(new URL(`../${libraryFiles[name]}`, import.meta.resolve("@xterm/xterm")), "utf8")); // lib/xterm.js
}
