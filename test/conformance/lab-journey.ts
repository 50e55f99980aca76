// The journey against a real lab: closed network, real hub, real appliance and guest; the SDKs run on the operator's desk, behind its proxy.
// Run: npm run conformance -- --lab (root, ten minutes and more)

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { clear } from "../../lab/demo/demo.ts";
import { makeStage, stageOf, startHub, type Stage } from "../../lab/demo/stage.ts";
import { labUp, type LabFacts } from "../../lab/lab.ts";
import { inZone } from "../../lab/processes.ts";
import { writeFileAtomic } from "../../src/base/atomic-file.ts";
import { operatorFileShape, parseJson } from "../../src/cli/profile.ts";

const prefix = "cf";
const say = (text: string): void => void process.stderr.write(`${text}\n`);

const stage = stageOf(prefix);
await clear(stage);
try {
  await makeStage(stage);
  const lab = await labUp({ prefix, progress: say });
  await startHub(stage, lab);
  process.exitCode = await runOnDesk(stage, lab);
} finally {
  for (const left of await clear(stage)) say(`left behind: ${left}`);
}

/** The operator's desk reaches the hub's public names by the proxy alone; the SDKs take it from the environment, as everywhere. */
async function runOnDesk(place: Stage, lab: LabFacts): Promise<number> {
  const labFile = join(place.folder, "lab.json");
  await writeFileAtomic(labFile, JSON.stringify(lab));
  const env = {
    ...process.env,
    HTTPS_PROXY: lab.proxy.url,
    NODE_USE_ENV_PROXY: "1",
    WATARI_CONFORMANCE_HUB: await writeHubFacts(place),
    WATARI_CONFORMANCE_LAB: labFile,
  };
  const test = ["--disable-warning=ExperimentalWarning", "--test", join(import.meta.dirname, "journey.test.ts")];
  const [program, ...args] = inZone(place.place, "onprem", [process.execPath, ...test]);
  const child = spawn(program, args, { env, stdio: ["ignore", "inherit", "inherit"] });
  const ending: readonly unknown[] = await once(child, "exit");
  return ending[0] === 0 ? 0 : 1;
}

/** What `watari hub --ephemeral` prints, for this hub. */
async function writeHubFacts(place: Stage): Promise<string> {
  const operatorFile = join(place.hubState, "operator.json");
  const operator = parseJson(await readFile(operatorFile, "utf8"), operatorFileShape, operatorFile);
  const { managementUrl: endpoint, loginUrl: authority, tenantId, clientId, clientSecret, subscriptionId, caPem } = operator;
  const caFile = join(place.folder, "hub-ca.pem");
  await writeFileAtomic(caFile, caPem);
  const file = join(place.folder, "conformance.json");
  // Group and vault of an ephemeral hub; here the journey makes its own.
  const facts = { endpoint, authority, caFile, tenantId, clientId, clientSecret, subscriptionId, resourceGroup: "none", vault: "none" };
  await writeFileAtomic(file, JSON.stringify(facts), { mode: 0o600 });
  return file;
}
