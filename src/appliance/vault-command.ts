// `watari appliance vault …`: what an operator can ask of this appliance's part of the vault.

import type { Command } from "commander";
import { formatTable, printAnswer } from "../cli/output.ts";
import type { AdminResponse } from "../contract/appliance-admin.ts";
import { callAppliance } from "./admin/admin-client.ts";

interface Common {
  readonly state: string;
  readonly json: boolean;
}

export function addVaultCommands(verb: (parent: Command, name: string, description: string) => Command, vault: Command): void {
  verb(vault, "collect", "remove what no recovery point needs, and rewrite packs that are mostly garbage")
    .option("--dry-run", "say what would be removed, and remove nothing", false)
    .action(async (options: Common & { readonly dryRun: boolean }) => {
      const report = await callAppliance(options.state, "collectGarbage", { isDryRun: options.dryRun });
      printAnswer({ asJson: options.json }, report, () => collectionText(report, options.dryRun));
    });
  verb(vault, "verify", "read every byte that recovery points rely on, and name what is damaged")
    .option("--machine <id>", "only the points of this machine")
    .option("--point <id>", "only this point")
    .action(async (options: Common & { readonly machine?: string; readonly point?: string }) => {
      const { machine: machineId, point: pointId } = options;
      const only = { ...(machineId === undefined ? {} : { machineId }), ...(pointId === undefined ? {} : { pointId }) };
      const report = await callAppliance(options.state, "verifyPoints", only);
      printAnswer({ asJson: options.json }, report, () => verificationText(report));
      if (report.damagedCount > 0) process.exitCode = 1;
    });
  verb(vault, "lost", "list recovery points whose objects are gone, as far as packs tell of them").action(async (options: Common) => {
    const { points, isComplete } = await callAppliance(options.state, "listLostPoints", {});
    const rows = points.map(({ pointId, machineId, time, isWhole }) => [pointId, machineId, time, isWhole ? "yes" : "no"]);
    printAnswer(
      { asJson: options.json },
      { points, isComplete },
      () => formatTable(["point", "machine", "time", "can be restored"], rows) + (isComplete ? "" : "\nthere are more"),
    );
  });
  verb(vault, "restore-point", "write the object of a lost recovery point anew")
    .argument("<point>", "its id")
    .action(async (pointId: string, options: Common) => {
      const point = await callAppliance(options.state, "restorePoint", { pointId });
      printAnswer({ asJson: options.json }, point, () => `recovery point ${point.pointId} of ${point.time} is there again`);
    });
}

function collectionText(report: AdminResponse<"collectGarbage">, isDryRun: boolean): string {
  const { pointCount, packCount, packBytes, liveBytes, removedPackCount, rewrittenPackCount, removedBytes, movedBytes } = report;
  return [
    `${pointCount} recovery points need ${liveBytes} of ${packBytes} bytes in ${packCount} packs`,
    `${removedPackCount} packs ${isDryRun ? "would be" : "were"} removed and ${rewrittenPackCount} rewritten: ${removedBytes} bytes`,
    ...(isDryRun ? [] : [`${movedBytes} bytes were written anew`]),
    ...report.damagedPacks.map((key) => `pack ${key} could not be read and stays: verify the recovery points`),
  ].join("\n");
}

function verificationText({ pointCount, readBlocks, damaged, damagedCount }: AdminResponse<"verifyPoints">): string {
  const rows = damaged.map((each) => [each.pointId, each.diskId, `${each.offset}`, `${each.length}`, each.packKey ?? "none", each.finding]);
  return [
    `${pointCount} recovery points, ${readBlocks} different blocks read, ${damagedCount} damaged ranges`,
    ...(rows.length === 0 ? [] : [formatTable(["point", "disk", "offset", "bytes", "pack", "finding"], rows)]),
  ].join("\n");
}
