// `watari hub health`: asks the hub of a configuration whether it answers, as service managers, containers and load balancers do.

import { readFile } from "node:fs/promises";
import { isIP, type LookupFunction } from "node:net";
import { join } from "node:path";
import type { Command } from "commander";
import { Agent, request } from "undici";
import { printAnswer } from "../cli/output.ts";
import { Fault } from "../contract/errors.ts";
import { defaultConfigFile, readHubConfig, type HubConfig } from "./hub-config.ts";
import { publicNamesOf } from "./private-link/public-door.ts";

interface Options {
  readonly config: string;
  readonly timeout: string;
  readonly json?: boolean;
}

const answerBytesMax = 64 << 10;

export function registerHealthCommand(noun: Command): void {
  noun
    .command("health")
    .description("ask the hub of this configuration whether it answers; exit code 0 when it does")
    .option("--config <file>", "the hub's configuration", defaultConfigFile)
    .option("--timeout <seconds>", "how long to wait for the answer", "5")
    .option("--json", "answer as JSON on stdout")
    .action(async (options: Options) => {
      const timeoutSeconds = Number(options.timeout);
      if (!(timeoutSeconds > 0 && timeoutSeconds <= 600))
        throw new Fault("InputInvalid", "could not ask for the hub's health: --timeout takes seconds from 0 to 600");
      const answer = await askHealth(await readHubConfig(options.config), timeoutSeconds * 1000);
      printAnswer({ asJson: options.json === true }, answer, () => "the hub answers");
    });
}

/** Over its public name at its first public address, so that no resolver is asked; its certificate is checked. */
async function askHealth(config: HubConfig, timeoutMs: number): Promise<unknown> {
  const [address = ""] = config.publicAddresses;
  const url = `https://${publicNamesOf(config.domain).management}:${config.managementPort}/health`;
  const caFile = join(config.stateDir, "pki", "ca.pem");
  const ca = await readFile(caFile, "utf8").catch((cause: unknown) => {
    throw new Fault("HubUnreachable", "could not ask for the hub's health: it has no certificate authority yet", {
      evidence: { caFile },
      causes: ["the hub has never been started with this configuration", "this user may not read its state folder"],
      action: "start the hub; call this as the user that it runs as, or as root",
      cause,
    });
  });
  const agent = new Agent({ connect: { ca, lookup: lookupAt(address), timeout: timeoutMs } });
  try {
    const { statusCode, body } = await request(url, { dispatcher: agent, signal: AbortSignal.timeout(timeoutMs) });
    const text = (await body.text()).slice(0, answerBytesMax);
    if (statusCode === 200) return JSON.parse(text);
    throw new Fault("HubUnreachable", `could not see a healthy hub: it answered ${statusCode}`, { evidence: { url, address, text } });
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("HubUnreachable", "could not reach the hub", {
      evidence: { url, address, reason: error instanceof Error ? error.message : String(error) },
      cause: error,
    });
  } finally {
    await agent.close();
  }
}

function lookupAt(address: string): LookupFunction {
  const family = isIP(address);
  return (_name, options, answer) => {
    if (options.all === true) answer(null, [{ address, family }]);
    else answer(null, address, family);
  };
}
