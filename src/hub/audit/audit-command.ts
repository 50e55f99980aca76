// `watari hub audit`: proves the audit trail, and writes it out, straight from the database; the hub may run or not.

import type { Command } from "commander";
import { openLog } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { say } from "../../cli/output.ts";
import { auditHeadFile, readAuditHead } from "../db/audit.ts";
import { allAudit, proveAudit } from "../db/audit-entries.ts";
import { openPlainConnection } from "../db/database.ts";
import { withDatabase } from "../command-database.ts";
import { defaultConfigFile, readHubConfig } from "../hub-config.ts";

interface Options {
  readonly config: string;
  readonly json?: boolean;
  readonly after?: string;
}

const helpText = `
Each write has an entry when it begins and one when it ends; each entry holds the hash of the one before it. The head of the chain is also in
the state folder (audit-head.json), outside of the database. Both verbs work while the hub runs and while it does not:
  watari hub audit verify                       exit code 5 and the first broken entry, when there is one
  watari hub audit export --after 1200 > more   JSON lines, to be kept elsewhere`;

export function registerAuditCommands(noun: Command): void {
  const audit = noun.command("audit").description("who asked for which write on what, and how it ended").addHelpText("after", helpText);
  audit
    .command("verify")
    .description("prove that no entry was changed, moved or removed; names the first broken one")
    .option("--config <file>", "the hub's configuration", defaultConfigFile)
    .option("--json", "answer as JSON on stdout")
    .action(verify);
  audit
    .command("export")
    .description("write the entries to stdout, one JSON object a line, with the hashes that chain them")
    .option("--config <file>", "the hub's configuration", defaultConfigFile)
    .option("--after <sequence>", "only the entries after this one")
    .action(writeOut);
}

async function verify({ config: file, json }: Options): Promise<void> {
  const config = await readHubConfig(file);
  // The head first: what is added meanwhile may only be more.
  const head = await readAuditHead(auditHeadFile(config.stateDir));
  const log = openLog({ program: "hub", level: "warn" });
  const proof = await withDatabase(config, log, async (address) => {
    await using connection = openPlainConnection(address, log);
    return await proveAudit(connection.db, head);
  });
  if (json === true) process.stdout.write(`${JSON.stringify(proof)}\n`);
  if (proof.kind === "broken")
    throw new Fault("DataDamaged", `the audit trail is broken at entry ${proof.sequence}: ${proof.reason}`, {
      evidence: { sequence: proof.sequence, headSequence: head?.sequence ?? "unknown" },
      causes: ["somebody changed the database", "the database is an older copy than the hub's state folder"],
      action: "compare with an export or a backup; once it is explained, remove audit-head.json from the state folder",
    });
  say(`${proof.count} entries, every link whole${head === undefined ? "; this state folder has no audit-head.json to prove the end" : ""}`);
}

async function writeOut({ config: file, after }: Options): Promise<void> {
  const first = Number(after ?? 0);
  if (!Number.isSafeInteger(first) || first < 0) throw new Fault("InputInvalid", "could not export: --after is a whole number from 0");
  const config = await readHubConfig(file);
  const log = openLog({ program: "hub", level: "warn" });
  await withDatabase(config, log, async (address) => {
    await using connection = openPlainConnection(address, log);
    for await (const row of allAudit(connection.db, first)) {
      const isTaken = process.stdout.write(`${JSON.stringify(row)}\n`);
      if (!isTaken) await new Promise<void>((resolve) => process.stdout.once("drain", () => resolve()));
    }
  });
}
