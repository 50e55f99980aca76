// For tests: the smallest agent that can be installed on a guest: registers, then polls with one long poll after the other.

import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createFacts, poll, registerAgent, type AgentIdentity, type Ports } from "./scripted-agent.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { state: { type: "string" }, appliance: { type: "string" }, ca: { type: "string" }, "passphrase-file": { type: "string" } },
});
const state = values.state ?? "";
const identityFile = join(state, "identity.json");
const facts = async () =>
  createFacts({
    smbiosUuid: (await readFile("/sys/class/dmi/id/product_uuid", "utf8").catch(() => "")).trim().toLowerCase(),
    osMachineId: (await readFile("/etc/machine-id", "utf8")).trim(),
    bootId: (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim(),
  });

if (positionals[0] === "register") {
  const controlPort = Number(values.appliance?.split(":")[1]);
  const ports: Ports = { controlPort, dataPort: 0, caPem: await readFile(values.ca ?? "", "utf8") };
  const passphraseFile = values["passphrase-file"] ?? "";
  const identity = await registerAgent(ports, await facts(), (await readFile(passphraseFile, "utf8")).trim());
  await writeFile(identityFile, JSON.stringify({ ports, identity, applianceHost: "127.0.0.1" }));
  await rm(passphraseFile);
} else {
  const { ports, identity } = JSON.parse(await readFile(identityFile, "utf8")) as {
    readonly ports: Ports;
    readonly identity: AgentIdentity;
  };
  for (;;) await poll(ports, identity, await facts(), { waitSeconds: 30 });
}
