// A real `watari hub run` as a child of a bench: started, called, measured with its database, killed, and started again.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { Agent, request } from "undici";
import { z } from "zod";
import { operatorFileShape, parseJson } from "../src/cli/profile.ts";
import { collectedHeap, delaysDuring, profileDuring, type LoopDelays } from "./hub-inspector.ts";
import { childrenOf, cpuSecondsOf, residentMibOf } from "./measured.ts";

const pageShape = z.object({ value: z.array(z.object({ id: z.string(), name: z.string() })), nextLink: z.string().optional() });
export type Page = z.infer<typeof pageShape>;

export interface Usage {
  readonly hubCpuSeconds: number;
  readonly databaseCpuSeconds: number;
  readonly hubResidentMib: number;
}

export interface HubProgram extends AsyncDisposable {
  readonly url: string;
  readonly operator: z.infer<typeof operatorFileShape>;
  readonly token: string;
  /** From the start of the program to its word that it is ready. */
  readonly startSeconds: number;
  page(path: string): Promise<Page>;
  usage(): Promise<Usage>;
  /** Bytes of JavaScript that are alive, after a full collection. Only of a hub that was started with `isInspected`. */
  heapBytes(): Promise<number>;
  /** Of the event loop while the task runs. Only of a hub that was started with `isInspected`. */
  delays(task: () => Promise<void>): Promise<LoopDelays>;
  /** A .cpuprofile of the hub while the task runs. Only of a hub that was started with `isInspected`. */
  profile(task: () => Promise<void>): Promise<string>;
  end(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
}

export interface HubProgramOptions {
  readonly folder: string;
  /** What is not the same in every bench. */
  readonly config: Readonly<Record<string, unknown>> & { readonly managementPort: number };
  /** The database's data folder; its processes are counted apart from the hub's own. */
  readonly dataFolder: string;
  readonly isInspected?: boolean;
}

export async function startHubProgram({ folder, config, dataFolder, isInspected }: HubProgramOptions): Promise<HubProgram> {
  const file = join(folder, "hub.yaml");
  const common = { domain: "watari.test", stateDir: folder, publicAddresses: ["127.0.0.1"], localName: "localhost" };
  await writeFile(file, JSON.stringify({ ...common, ...config }));
  const startedMs = performance.now();
  const inspect = isInspected === true ? ["--inspect=127.0.0.1:0"] : [];
  const args = [...inspect, "--disable-warning=ExperimentalWarning", "src/main.ts", "hub", "run", "--config", file];
  const child = spawn(process.execPath, [...args, "--log-file", join(folder, "log")], { stdio: ["ignore", "ignore", "pipe"] });
  const inspector = await untilReady(child);
  const startSeconds = (performance.now() - startedMs) / 1000;
  const operatorFile = join(folder, "operator.json");
  const operator = parseJson(await readFile(operatorFile, "utf8"), operatorFileShape, operatorFile);
  const url = `https://localhost:${config.managementPort}`;
  const dispatcher = new Agent({ connect: { ca: operator.caPem } });
  const token = await signIn(url, operator, dispatcher);
  const end: HubProgram["end"] = async (signal) => {
    await dispatcher.close();
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  };
  return {
    ...{ url, operator, token, startSeconds, end },
    page: async (path) => {
      const target = path.startsWith("https:") ? path : `${url}${path}`;
      const { statusCode, body } = await request(target, { headers: { authorization: `Bearer ${token}` }, dispatcher });
      const text = await body.text();
      assert.equal(statusCode, 200, text.slice(0, 500));
      return pageShape.parse(JSON.parse(text));
    },
    usage: async () => await usageOf(child.pid ?? 0, dataFolder),
    heapBytes: async () => await collectedHeap(inspector),
    delays: async (task) => await delaysDuring(inspector, task),
    profile: async (task) => await profileDuring(inspector, task),
    [Symbol.asyncDispose]: async () => await end("SIGTERM"),
  };
}

/** The rest of what it says is read and dropped, so that a full pipe never stops it. Answers the inspector's address, if it has one. */
async function untilReady(child: ChildProcess): Promise<string | undefined> {
  assert.ok(child.stderr !== null);
  const lines = createInterface({ input: child.stderr });
  const ready = Promise.withResolvers<void>();
  let inspector: string | undefined;
  let said = "";
  lines.on("line", (line) => {
    inspector ??= /^Debugger listening on (ws:\S+)$/.exec(line)?.[1];
    said = `${said}${line}\n`.slice(-2000);
    if (line.startsWith("hub ready")) ready.resolve();
  });
  child.once("exit", () => ready.reject(new Error(`the hub ended before it was ready: ${said}`)));
  await ready.promise;
  return inspector;
}

async function signIn(url: string, operator: z.infer<typeof operatorFileShape>, dispatcher: Agent): Promise<string> {
  const { tenantId, clientId, clientSecret } = operator;
  const grant = { grant_type: "client_credentials", client_id: clientId, client_secret: clientSecret, scope: `${url}/.default` };
  const answer = await request(`${url}/${tenantId}/oauth2/v2.0/token`, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams(grant).toString(),
    dispatcher,
  });
  return z.object({ access_token: z.string() }).parse(await answer.body.json()).access_token;
}

async function usageOf(pid: number, dataFolder: string): Promise<Usage> {
  const postmaster = Number((await readFile(join(dataFolder, "postmaster.pid"), "utf8")).split("\n", 1)[0]);
  const servers = [postmaster, ...(await childrenOf(postmaster))];
  const seconds = await Promise.all(servers.map(async (each) => await cpuSecondsOf(each)));
  return {
    hubCpuSeconds: await cpuSecondsOf(pid),
    databaseCpuSeconds: seconds.reduce((sum, each) => sum + each, 0),
    hubResidentMib: await residentMibOf(pid),
  };
}
