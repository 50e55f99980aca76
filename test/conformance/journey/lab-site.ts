// The lab as the journey's site: commands on the operator's desk set a real appliance up, with the lab's vCenter and its guest's account.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readLedgerFromDisk, verifyLedger, type LedgerVerification } from "../../../lab/demo/ledger.ts";
import { landingNetwork, operate, stageOf, startAppliance, type Stage } from "../../../lab/demo/stage.ts";
import { writeFileAtomic } from "../../../src/base/atomic-file.ts";
import type { RegistrationKey } from "../../../src/contract/appliance-protocol.ts";
import { Fault } from "../../../src/contract/errors.ts";
import type { JourneySite } from "./site.ts";
import { waitUntil } from "./wait-until.ts";

/** Of the lab's facts, what the set-up of an appliance needs. */
const labShape = z.object({
  prefix: z.string(),
  caFile: z.string(),
  zones: z.object({ onprem: z.object({ resolver: z.string() }) }),
  applianceAddress: z.string(),
  proxy: z.object({ url: z.string() }),
  vcenter: z.object({ name: z.string(), user: z.string(), passwordFile: z.string() }),
  guest: z.object({ user: z.string(), passwordFile: z.string() }),
  machines: z.array(z.object({ name: z.string(), disks: z.array(z.object({ path: z.string() })).min(1) })).min(1),
});
type Lab = z.infer<typeof labShape>;

const labSecondsMax = 900;
const ledgerPort = 8080;

export async function openLabSite(factsFile: string): Promise<JourneySite> {
  const lab = labShape.parse(JSON.parse(await readFile(factsFile, "utf8")));
  const stage = stageOf(lab.prefix);
  return {
    network: { name: landingNetwork, subnet: "default", cidr: "10.200.0.0/24" },
    proxy: lab.proxy.url,
    machine: lab.machines[0]?.name ?? "",
    runAsAccount: "guest",
    secondsMax: labSecondsMax,
    register: async (key) => {
      await registerAppliance(stage, lab, key);
      // Who made the lab takes the appliance down with it.
      return { [Symbol.asyncDispose]: async () => await Promise.resolve() };
    },
    proveLanded: async (addresses) => await proveLedger(stage, lab, addresses),
  };
}

/** The guest wrote numbered, checksummed records until it was fenced; all of them must be at the new place, where it writes on. */
async function proveLedger(stage: Stage, lab: Lab, addresses: readonly string[]): Promise<string> {
  const before = await readLedgerFromDisk(lab.machines[0]?.disks[0]?.path ?? "", stage.folder);
  const landed = await waitUntil(`the ledger at ${addresses.join(", ")}`, labSecondsMax, async () => await lookAt(stage, addresses));
  const [current, previous] = landed.boots.toReversed();
  assert.ok(current !== undefined && previous !== undefined, "the landed ledger tells of its source's boot and of its own");
  assert.deepEqual({ missing: landed.missing, damaged: landed.damaged }, { missing: 0, damaged: 0 });
  assert.ok(previous.last >= before.last, `the source wrote record ${before.last}, and ${previous.last} is the last that landed`);
  return `last record on the source ${before.last}, first of the landed machine ${current.first}, ${landed.count} records whole`;
}

async function lookAt({ place }: Stage, addresses: readonly string[]): Promise<LedgerVerification | undefined> {
  for (const address of addresses) {
    try {
      return await verifyLedger(place, "landing", `http://${address}:${ledgerPort}`);
    } catch (error) {
      if (!(error instanceof Fault)) throw error; // Not up yet.
    }
  }
  return undefined;
}

async function registerAppliance(stage: Stage, lab: Lab, key: RegistrationKey): Promise<void> {
  const { applianceAddress, proxy, zones, vcenter, guest, caFile } = lab;
  const keyFile = join(stage.folder, "registration-key.json");
  await writeFileAtomic(keyFile, `${JSON.stringify(key)}\n`, { mode: 0o600 });
  const appliance = async (...args: readonly string[]): Promise<unknown> =>
    await operate(stage, ["appliance", ...args, "--state", stage.applianceState]);
  const keep = async (
    name: string,
    kind: string,
    account: { readonly user: string; readonly passwordFile: string },
    ...more: readonly string[]
  ) =>
    await appliance(
      "credential",
      "add",
      "--name",
      name,
      "--kind",
      kind,
      "--user",
      account.user,
      "--secret-file",
      account.passwordFile,
      ...more,
    );
  await appliance("init", "--listen", applianceAddress, "--proxy", proxy.url, "--dns", zones.onprem.resolver);
  await startAppliance(stage, async () => await isUp(appliance));
  await appliance("check", "--key", keyFile);
  await appliance("register", "--key", keyFile);
  await keep("vcenter", "vcenter", vcenter);
  await keep("guest", "linux-password", guest, "--privilege", "sudo");
  await appliance("vcenter", "add", "--name", "vc", "--address", vcenter.name, "--credential", "vcenter", "--ca", caFile);
  await appliance("discover");
}

async function isUp(appliance: (...args: readonly string[]) => Promise<unknown>): Promise<boolean> {
  try {
    await appliance("status");
    return true;
  } catch (error) {
    if (error instanceof Fault && error.code === "ApplianceNotRunning") return false;
    throw error;
  }
}
