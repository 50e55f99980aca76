// The hub as a program of its own, killed with SIGKILL: what it acknowledged is there after the next start, and nothing runs twice.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { Resolver } from "node:dns/promises";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { stringify } from "yaml";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { runCommand, tryCommand } from "../base/run-command.ts";
import { registrationKeyShape } from "../contract/appliance-protocol.ts";
import {
  callTarget,
  createLandingZone,
  findFreePort,
  loopbackNetwork,
  signIn,
  testDomain,
  type Answer,
  type TestHub,
} from "./test-client.ts";

const program = join(import.meta.dirname, "..", "main.ts");
const startMsMax = 60_000;

interface HubProcess {
  readonly child: ChildProcess;
  readonly kill: (signal: NodeJS.Signals) => Promise<void>;
}

interface Place {
  readonly stateDir: string;
  readonly configFile: string;
  readonly port: number;
  readonly endpointPort: number;
  readonly cidr: string;
  readonly dns: { readonly address: string; readonly port: number };
}

async function makePlace(network: object, cidr: string, dnsAddress: string): Promise<Place> {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-kill-"));
  const [port, endpointPort, dnsPort] = [await findFreePort(), await findFreePort(), await findFreePort()];
  const configFile = join(stateDir, "hub.yaml");
  const networks = [{ virtualNetwork: "landing", cidr, dnsAddress, dnsPort, ...network }];
  const config = { domain: testDomain, stateDir, publicAddresses: ["127.0.0.1"], managementPort: port, endpointPort, networks };
  await writeFile(configFile, stringify(config));
  return { stateDir, configFile, port, endpointPort, cidr, dns: { address: dnsAddress, port: dnsPort } };
}

/** Returns when the program said that it is ready. */
async function startHubProcess(place: Place, prefix: readonly string[] = []): Promise<HubProcess> {
  const [command, ...args] = [...prefix, process.execPath, program, "hub", "run", "--config", place.configFile] as const;
  const child = spawn(command ?? "", [...args, "--log-file", join(place.stateDir, "hub.log")], { stdio: ["ignore", "ignore", "pipe"] });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  let said = "";
  const ready = new Promise<void>((resolve) => {
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (said.includes("hub ready")) resolve();
    });
  });
  const waiting = new AbortController();
  const outcome = await Promise.race([
    ready.then(() => "ready"),
    exited.then(() => "ended"),
    systemClock.sleep(startMsMax, waiting.signal).then(
      () => "late",
      () => "late",
    ),
  ]);
  waiting.abort();
  if (outcome !== "ready") child.kill("SIGKILL");
  assert.equal(outcome, "ready", said);
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    await exited;
  };
  return { child, kill };
}

const operatorShape = z.object({
  managementUrl: z.string(),
  loginUrl: z.string(),
  tenantId: z.string(),
  clientId: z.string(),
  clientSecret: z.string(),
  subscriptionId: z.string(),
  caPem: z.string(),
});

/** The caller's side of a hub in another process, in the form that createLandingZone takes. */
async function callerOf(place: Place): Promise<Pick<TestHub, "arm" | "groupPath"> & { readonly caPem: string }> {
  const operator = operatorShape.parse(JSON.parse(await readFile(join(place.stateDir, "operator.json"), "utf8")));
  const target = (name: string) => ({ name, address: "127.0.0.1", port: place.port, ca: operator.caPem });
  const token = await signIn(target(`login.${testDomain}`), operator);
  return {
    caPem: operator.caPem,
    groupPath: `/subscriptions/${operator.subscriptionId}/resourceGroups/Move`,
    arm: (method, path, body): Promise<Answer> =>
      callTarget(target(`management.${testDomain}`), {
        method,
        path: `${path}?api-version=2025-08-01`,
        body,
        headers: { authorization: `Bearer ${token}` },
      }),
  };
}

async function childPid(place: Place): Promise<number> {
  const files = await readdir(join(place.stateDir, "dns"));
  const record = files.find((file) => file.endsWith(".pid")) ?? "";
  return Number((await readFile(join(place.stateDir, "dns", record), "utf8")).split(" ")[0]);
}

async function postmasterPid(place: Place): Promise<string | undefined> {
  return (await readFile(join(place.stateDir, "pg", "data", "postmaster.pid"), "utf8")).split("\n")[0];
}

async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !/\) Z /.test(stat);
}

async function stopAll(place: Place, hub: HubProcess | undefined): Promise<void> {
  await hub?.kill("SIGTERM");
  await rm(place.stateDir, { recursive: true, force: true });
}

test("a hub killed at any time keeps every answered write, its endpoints, its names, one database and one resolver", async () => {
  const cidr = loopbackNetwork();
  const place = await makePlace({}, cidr, cidr.replace(/0\/24$/, "2"));
  let hub: HubProcess | undefined = await startHubProcess(place);
  try {
    const first = await callerOf(place);
    const { vaultIds } = await createLandingZone(first, cidr);
    const resolver = new Resolver({ timeout: 2000, tries: 2 });
    resolver.setServers([`${place.dns.address}:${place.dns.port}`]);
    const key = registrationKeyShape.parse((await first.arm("POST", `${vaultIds[0]}/registrationKeys`, {})).body);
    const names = [...Object.values(key.services), `packs1.blob.${testDomain}`];
    const addresses = await Promise.all(names.map((name) => resolver.resolve4(name)));
    assert.deepEqual(await resolver.resolveCname(`packs1.blob.${testDomain}`), [`packs1.privatelink.blob.${testDomain}`]);
    const acknowledged: string[] = [];
    for (let round = 0; round < 3; round++) {
      const caller = await callerOf(place);
      const staleResolver = await childPid(place);
      const postmaster = await postmasterPid(place);
      // Writes go on until the kill takes the hub in the middle of one.
      const writing = (async () => {
        for (;;) {
          const name = `n${randomUUID().slice(0, 8)}`;
          const answer = await caller.arm("PUT", `${caller.groupPath}/providers/Microsoft.Migrate/migrateProjects/${name}`, {
            location: "lab1",
          });
          if (answer.status === 201) acknowledged.push(name);
        }
      })();
      const cut = assert.rejects(writing);
      await systemClock.sleep(100 + Math.floor(round * 130));
      await hub.kill("SIGKILL");
      await cut;
      hub = await startHubProcess(place);
      assert.equal(await postmasterPid(place), postmaster, "the database went on and was adopted");
      assert.equal(await isAlive(staleResolver), false, "the killed hub's resolver was ended");
      assert.deepEqual(await Promise.all(names.map((name) => resolver.resolve4(name))), addresses);
      const answer = await callTarget(
        { name: key.services.id1, address: addresses[0]?.[0] ?? "", port: place.endpointPort, ca: caller.caPem },
        { method: "POST", path: "/appliance/v1/storage-grant", body: {} },
      );
      assert.equal(answer.status, 401);
    }
    assert.ok(acknowledged.length > 0);
    const caller = await callerOf(place);
    for (const name of acknowledged)
      assert.equal((await caller.arm("GET", `${caller.groupPath}/providers/Microsoft.Migrate/migrateProjects/${name}`)).status, 200, name);
  } finally {
    await stopAll(place, hub);
  }
});

const isRoot = process.getuid?.() === 0;

test(
  "with an interface, endpoint addresses are on it while they are served, also after a kill, and gone after a stop",
  { skip: isRoot ? false : "needs root" },
  async () => {
    const namespace = `hubt-${randomUUID().slice(0, 8)}`;
    const place = await makePlace({ interface: "land0" }, "10.200.0.0/24", "10.200.0.53");
    let hub: HubProcess | undefined;
    await runCommand("ip", ["netns", "add", namespace]);
    try {
      const inside = ["ip", "netns", "exec", namespace];
      const run = (...args: string[]) => runCommand(inside[0] ?? "", [...inside.slice(1), ...args]);
      await run("ip", "link", "set", "lo", "up");
      await run("ip", "link", "add", "land0", "type", "veth", "peer", "name", "land1");
      await run("ip", "link", "set", "land0", "up");
      await run("ip", "address", "add", "10.200.0.1/24", "dev", "land0");
      await run("ip", "address", "add", "10.200.0.53/32", "dev", "land0");
      hub = await startHubProcess(place, inside);
      const operator = operatorShape.parse(JSON.parse(await readFile(join(place.stateDir, "operator.json"), "utf8")));
      const caFile = join(place.stateDir, "ca-for-curl.pem");
      await writeFile(caFile, operator.caPem);
      const curl = async (name: string, address: string, port: number, path: string, ...more: string[]) =>
        (
          await tryCommand(
            "ip",
            [
              "netns",
              "exec",
              namespace,
              "curl",
              "-sS",
              "--cacert",
              caFile,
              "--resolve",
              `${name}:${port}:${address}`,
              ...more,
              `https://${name}:${port}${path}`,
            ],
            { timeoutMs: 20_000 },
          )
        ).stdout;
      const form = new URLSearchParams({
        grant_type: "client_credentials",
        client_id: operator.clientId,
        client_secret: operator.clientSecret,
        scope: `https://management.${testDomain}/.default`,
      });
      const formFile = join(place.stateDir, "form");
      await writeFile(formFile, form.toString(), { mode: 0o600 });
      const { access_token: token } = z
        .object({ access_token: z.string() })
        .parse(
          JSON.parse(
            await curl(`login.${testDomain}`, "127.0.0.1", place.port, `/${operator.tenantId}/oauth2/v2.0/token`, "--data", `@${formFile}`),
          ),
        );
      const arm = async (method: string, path: string, body: unknown): Promise<Answer> => {
        const bodyFile = join(place.stateDir, "body");
        await writeFile(bodyFile, JSON.stringify(body ?? {}));
        const text = await curl(
          `management.${testDomain}`,
          "127.0.0.1",
          place.port,
          `${path}?api-version=2025-08-01`,
          "-X",
          method,
          "-H",
          `authorization: Bearer ${token}`,
          "-H",
          "content-type: application/json",
          "--data",
          `@${bodyFile}`,
          "-w",
          "\n%{http_code}",
        );
        const lines = text.trimEnd().split("\n");
        return { status: Number(lines.at(-1)), headers: {}, body: JSON.parse(lines.slice(0, -1).join("\n") || "null") };
      };
      await createLandingZone({ arm, groupPath: `/subscriptions/${operator.subscriptionId}/resourceGroups/Move` }, "10.200.0.0/24");
      const addresses = async () =>
        [...(await run("ip", "-o", "address", "show", "dev", "land0")).stdout.matchAll(/inet (10\.200\.0\.\d+)\/32/g)]
          .map((match) => match[1] ?? "")
          .filter((address) => address !== "10.200.0.53");
      const expected = ["10.200.0.4", "10.200.0.5", "10.200.0.6", "10.200.0.7", "10.200.0.8", "10.200.0.9"];
      assert.deepEqual(await addresses(), expected);
      const refused = await curl(`packs1.blob.${testDomain}`, "10.200.0.4", place.endpointPort, "/");
      assert.match(refused, /<Code>/);
      await hub.kill("SIGKILL");
      assert.deepEqual(await addresses(), expected);
      hub = await startHubProcess(place, inside);
      assert.deepEqual(await addresses(), expected);
      assert.match(await curl(`packs1.blob.${testDomain}`, "10.200.0.4", place.endpointPort, "/"), /<Code>/);
      await hub.kill("SIGTERM");
      hub = undefined;
      assert.deepEqual(await addresses(), []);
    } finally {
      await stopAll(place, hub);
      await runCommand("ip", ["netns", "del", namespace]);
    }
  },
);
