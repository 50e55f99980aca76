// The closed network that is broken on purpose: lab, hub and vault, the plan of it, and the check as an operator gives it.

import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { z } from "zod";
import { onprem } from "../../../lab/addresses.ts";
import { landingNetwork, runOnDesk } from "../../../lab/demo/stage.ts";
import { namespaceOf, type Zone } from "../../../lab/place.ts";
import { endProcesses, labExec, startDaemon, waitUntil } from "../../../lab/processes.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { runCommand, type CommandResult } from "../../../src/base/run-command.ts";
import { faultReportShape } from "../../../src/contract/shapes.ts";
import type { PlanInput } from "../../../src/connectivity/plan/plan-document.ts";
import type { Leaf } from "../../../src/connectivity/test-certificates.ts";
import { Trial, vault } from "../../support/trial.ts";

const prefix = "wtrn";
const storage = "watarilab1";
const launcher = fileURLToPath(new URL("../../../watari", import.meta.url));
const armChild = fileURLToPath(new URL("arm-child.ts", import.meta.url));
const commandMsMax = 120_000;

const createdShape = z.looseObject({
  id: z.string(),
  names: z.array(z.object({ name: z.string(), addresses: z.array(z.string()).min(1) })),
});
const checkShape = z.looseObject({
  passed: z.boolean(),
  tookMs: z.number(),
  checks: z.array(
    z.looseObject({
      ...{
        id: z.string(),
        role: z.string(),
        hop: z.string(),
        to: z.string(),
        verdict: z.enum(["pass", "fail", "skipped"]),
        answer: z.string(),
      },
      repair: z.string().optional(),
      fault: faultReportShape.optional(),
    }),
  ),
});
export type Checked = z.infer<typeof checkShape>;
const siteCheckShape = checkShape.omit({ tookMs: true });
const enrolmentShape = z.object({ passphrase: z.string(), authorityPem: z.string() });
const agentChild = fileURLToPath(new URL("agent-child.ts", import.meta.url));
const startMsMax = 60_000;

export class ProofSite implements AsyncDisposable {
  readonly trial: Trial;
  readonly plan: PlanInput;
  readonly vaultId: string;
  readonly accountId: string;
  /** Name and address of one of the vault's services, of the storage account, and a public name. */
  readonly names: { readonly vault: string; readonly vaultAddress: string; readonly blob: string; readonly public: string };
  readonly #caFile: string;

  private constructor(trial: Trial, made: Pick<ProofSite, "plan" | "vaultId" | "accountId" | "names">) {
    this.trial = trial;
    this.plan = made.plan;
    this.vaultId = made.vaultId;
    this.accountId = made.accountId;
    this.names = made.names;
    this.#caFile = join(trial.stage.hubState, "pki", "ca.pem");
  }

  static async open(): Promise<ProofSite> {
    const trial = await Trial.open(prefix, []);
    const network = ["--network", landingNetwork];
    // Safe to repeat: it answers names and addresses.
    const account = createdShape.parse(await trial.desk.run("storage", "create", storage, ...network));
    const made = createdShape.parse(await trial.desk.run("vault", "create", vault, "--storage", storage, ...network));
    const [blob] = account.names;
    const [service] = made.names;
    if (blob === undefined || service === undefined) throw new Error("the hub told no private names");
    const { domain, proxy, zones } = trial.facts;
    const named = [...made.names, ...account.names].map(({ name, addresses: [address] }) => ({
      name,
      ...(address === undefined ? {} : { address }),
    }));
    const plan: PlanInput = {
      ...{ version: 1, profile: "watari", domain },
      zones: {
        onprem: { ranges: [onprem.network], dnsServers: [zones.onprem.resolver], proxy: "site" },
        landing: { ranges: ["10.200.0.0/24"], dnsServers: [zones.landing.resolver] },
      },
      lines: [{ from: "onprem", to: "landing" }],
      proxies: { site: { url: proxy.url } },
      privateEndpoints: [{ for: "other", zone: "landing", why: "vault and storage account", names: named }],
      roles: { appliance: { zone: "onprem", address: onprem.appliance }, agents: { zone: "onprem" } },
    };
    const names = { vault: service.name, vaultAddress: service.addresses[0] ?? "", blob: blob.name, public: `login.${domain}` };
    return new ProofSite(trial, { plan, vaultId: made.id, accountId: account.id, names });
  }

  /** Runs `watari net check` on a plan from the appliance's zone. `prefixed` comes before the command: faketime. */
  async #give(plan: PlanInput, prefixed: readonly string[]): Promise<CommandResult> {
    const file = join(this.trial.stage.folder, "plan.yaml");
    await writeFile(file, stringify(plan));
    const argv = [...prefixed, launcher, "net", "check", file, "--role", "appliance", "--json", "--ca", this.#caFile];
    const [program = launcher, ...args] = argv;
    return await labExec(this.trial.stage.place, "onprem", [program, ...args], { timeoutMs: commandMsMax });
  }

  async check(plan: PlanInput = this.plan, prefixed: readonly string[] = []): Promise<Checked> {
    const { stdout, stderr, exitCode } = await this.#give(plan, prefixed);
    const answer = checkShape.safeParse(parseJson(stdout));
    if (answer.success && (exitCode === 0) === answer.data.passed) return answer.data;
    throw new Error(`net check ended with ${exitCode}: ${stderr.slice(-2000)}`);
  }

  /** An appliance that is registered, and two agents in processes of their own that are registered with it: answers the machines' ids. */
  async startSite(): Promise<readonly string[]> {
    const { trial } = this;
    const { desk, stage, facts } = trial;
    const keyFile = join(stage.folder, "key.json");
    await desk.run("vault", "registration-key", vault, "--out", keyFile);
    await desk.run(...trial.appliance("init", ...trial.siteSettings(), "--proxy", facts.proxy.url));
    await trial.startAppliance();
    await desk.run(...trial.appliance("register", "--key", keyFile));
    const enrolment = enrolmentShape.parse(await desk.run(...trial.appliance("passphrase")));
    return await Promise.all(["agent-1", "agent-2"].map(async (name) => await this.#startAgent(name, enrolment)));
  }

  async #startAgent(name: string, { passphrase, authorityPem }: z.infer<typeof enrolmentShape>): Promise<string> {
    const { stage } = this.trial;
    const folder = join(stage.folder, name);
    await mkdir(join(folder, "state"), { recursive: true });
    await writeFile(join(folder, "passphrase"), passphrase, { mode: 0o600 });
    await writeFile(join(folder, "ca.pem"), authorityPem);
    const argv = [process.execPath, "--disable-warning=ExperimentalWarning", agentChild, folder, `${onprem.appliance}:443`];
    await startDaemon({ place: stage.place, zone: "onprem", name, argv });
    let machineId = "";
    await waitUntil(`the registration of ${name}`, startMsMax, async () => {
      machineId = await readFile(join(folder, "machine-id"), "utf8").catch(() => ""); // Not there yet.
      return machineId !== "";
    });
    return machineId;
  }

  /** Runs `watari site check`: the hub's rights, the appliance's ways by order, and those of agents through it. */
  async checkSite(machineIds: readonly string[] = []): Promise<Checked> {
    const startedMs = systemClock.monotonicMs();
    const args = ["site", "check", "--vault", vault, ...machineIds.flatMap((id) => ["--machine", id])];
    const { stdout, stderr } = await runOnDesk(this.trial.stage, [...args, "--json"]);
    const answer = siteCheckShape.safeParse(parseJson(stdout));
    if (answer.success) return { ...answer.data, tookMs: systemClock.monotonicMs() - startedMs };
    throw new Error(`site check: ${stderr.slice(-2000)}`);
  }

  /** One call to the hub, from the operator's desk. */
  async arm(method: "GET" | "PUT" | "DELETE", path: string, body?: unknown): Promise<unknown> {
    const { stage } = this.trial;
    const argv = [process.execPath, "--disable-warning=ExperimentalWarning", armChild, method, path] as const;
    const result = await labExec(stage.place, "onprem", [...argv, ...(body === undefined ? [] : [JSON.stringify(body)])], {
      env: { ...process.env, WATARI_PROFILE: stage.profile },
      timeoutMs: commandMsMax,
    });
    if (result.exitCode !== 0) throw new Error(`${method} ${path}: ${result.stderr.slice(-2000)}`);
    return JSON.parse(result.stdout);
  }

  /** Loads a table of its own into a zone's filters; answers what takes it away. */
  async filter(zone: Zone, rules: string): Promise<() => Promise<void>> {
    const namespace = ["ip", "netns", "exec", namespaceOf(this.trial.stage.place, zone)];
    const [program = "", ...args] = namespace;
    await runCommand(program, [...args, "nft", "-f", "-"], { stdin: `table inet proof {\n${rules}\n}\n` });
    return async () => void (await runCommand(program, [...args, "nft", "delete", "table", "inet", "proof"]));
  }

  /** The dmz's own filter still sees a redirected packet on its way out; the rule goes with the lab. */
  async allowInspector(port: number): Promise<void> {
    const namespace = namespaceOf(this.trial.stage.place, "dmz");
    const rule = ["insert", "rule", "inet", "watari", "output", "tcp", "dport", String(port), "accept"];
    await runCommand("ip", ["netns", "exec", namespace, "nft", ...rule]);
  }

  /** A line in the hosts file of the appliance's zone. */
  async hostsLine(text: string): Promise<() => Promise<void>> {
    const folder = `/etc/netns/${namespaceOf(this.trial.stage.place, "onprem")}`;
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "hosts"), `127.0.0.1 localhost\n${text}\n`);
    return async () => await rm(join(folder, "hosts"));
  }

  /** A web server with a certificate of its own at a port of a zone. */
  async impostor(zone: Zone, { cert, key }: Leaf, listen: string): Promise<() => Promise<void>> {
    const { place, folder } = { place: this.trial.stage.place, folder: this.trial.stage.folder };
    const files = { cert: join(folder, "impostor.pem"), key: join(folder, "impostor.key") };
    await writeFile(files.cert, cert);
    await writeFile(files.key, key, { mode: 0o600 });
    const server = ["openssl", "s_server", "-accept", listen, "-cert", files.cert, "-key", files.key, "-www", "-quiet"];
    const pid = await startDaemon({ place, zone, name: "impostor", argv: server });
    const [host = "", port = ""] = listen.split(":");
    await waitUntil("the impostor", 10_000, async () => {
      return (await labExec(place, zone, ["bash", "-c", `exec 3<>/dev/tcp/${host}/${port}`])).exitCode === 0;
    });
    return async () => {
      // NOTE: openssl's command line names the stage's files, which is the proof that the process is ours.
      const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      if (commandLine.includes(folder)) await endProcesses([pid]);
    };
  }

  addressOf(name: string): string {
    const found = this.plan.privateEndpoints
      ?.flatMap((endpoint) => ("names" in endpoint ? endpoint.names : []))
      .find((each) => each.name === name);
    if (found?.address === undefined) throw new Error(`the plan knows no address of ${name}`);
    return found.address;
  }

  /** "user:password" as the appliance keeps it for the proxy's second door. */
  async passwordFile(): Promise<string> {
    const { proxy } = this.trial.facts;
    const file = join(this.trial.stage.folder, "proxy-credentials");
    await writeFile(file, `${proxy.user}:${(await readFile(proxy.passwordFile, "utf8")).trim()}\n`, { mode: 0o600 });
    return file;
  }

  /** What the owner of the storage account says of its private endpoint. */
  async decideConnection(status: "Approved" | "Rejected"): Promise<void> {
    const listShape = z.looseObject({
      properties: z.looseObject({ privateEndpointConnections: z.array(z.looseObject({ id: z.string() })) }),
    });
    const [connection] = listShape.parse(await this.arm("GET", this.accountId)).properties.privateEndpointConnections;
    if (connection === undefined) throw new Error("the storage account has no connection");
    const properties = { privateLinkServiceConnectionState: { status, description: "by the proof" } };
    await this.arm("PUT", connection.id, { properties });
  }

  /** The link of the vault's zone to the endpoints' network. */
  async linkZone(state: "linked" | "unlinked"): Promise<void> {
    const zone = `GROUP/providers/Microsoft.Network/privateDnsZones/privatelink.siterecovery.${this.trial.facts.domain}`;
    const path = `${zone}/virtualNetworkLinks/${landingNetwork}`;
    if (state === "unlinked") return void (await this.arm("DELETE", path));
    const network = this.vaultId.replace(/\/providers\/.*/, `/providers/Microsoft.Network/virtualNetworks/${landingNetwork}`);
    await this.arm("PUT", path, { location: "global", properties: { virtualNetwork: { id: network }, registrationEnabled: false } });
  }

  /** The vault's role on its storage account. */
  async removeRole(): Promise<void> {
    const listShape = z.looseObject({ value: z.array(z.looseObject({ id: z.string() })) });
    const { value } = listShape.parse(await this.arm("GET", `${this.accountId}/providers/Microsoft.Authorization/roleAssignments`));
    const own = value.filter(({ id }) => id.startsWith(this.accountId));
    if (own.length === 0) throw new Error("the vault has no role to take away");
    for (const { id } of own) await this.arm("DELETE", id);
  }

  /** Does what the check's repair says. */
  async giveRole(): Promise<void> {
    await this.trial.desk.run("vault", "create", vault, "--storage", storage, "--network", landingNetwork);
  }

  /** Writes a proxy auto-configuration that the plan's proxy then has, ours unless one is given; answers the plan. */
  async planWithPac(text: string | undefined): Promise<PlanInput> {
    const { folder, place } = this.trial.stage;
    const [planFile, pacFile] = [join(folder, "pac-plan.yaml"), join(folder, "proxy.pac")];
    const proxies = { site: { url: this.trial.facts.proxy.url, pacFile } };
    const plan: PlanInput = { ...this.plan, proxies };
    await writeFile(planFile, stringify(plan));
    if (text !== undefined) await writeFile(pacFile, text);
    else await labExec(place, "onprem", [launcher, "net", "render", "pac", planFile, "--out", folder]);
    return plan;
  }

  /** An address of a zone's own, for something that pretends to be there. */
  async setAddress(zone: Zone, address: string, change: "add" | "del"): Promise<void> {
    const { place } = this.trial.stage;
    await runCommand("ip", ["netns", "exec", namespaceOf(place, zone), "ip", "addr", change, `${address}/32`, "dev", "lo"]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.trial[Symbol.asyncDispose]();
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The exit code and stderr tell.
  }
}
