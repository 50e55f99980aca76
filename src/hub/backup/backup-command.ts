// `watari hub backup` and `watari hub restore`.

import type { Command } from "commander";
import { systemClock } from "../../base/clock.ts";
import { openLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { say } from "../../cli/output.ts";
import { defaultConfigFile, readHubConfig } from "../hub-config.ts";
import { backUpHub, readPassphrase, restoreHub } from "./backup.ts";

interface Options {
  readonly config: string;
  readonly passphraseFile?: string;
  readonly withBlobs?: boolean;
}

const backupText = `
Called as the user that the hub runs as; with the Debian package:
  runuser -u watari-hub -- watari hub backup /var/lib/watari/today.backup --passphrase-file FILE
Not in it: landed machines, operator.json. Without a passphrase, master.key has to be kept beside it.`;

const restoreText = `
With the hub stopped, as the user that it runs as:
  1. move the state folder away (its YAML files may stay), or name an empty one in the configuration
  2. watari hub restore FILE --passphrase-file FILE
  3. without a passphrase: put master.key into the state folder, mode 0600
  4. start the hub; jobs that were under way go on`;

export function registerBackupCommands(noun: Command): void {
  const wishOf = async (path: string, options: Options) => ({
    path,
    config: await readHubConfig(options.config),
    ...(options.passphraseFile === undefined ? {} : { passphrase: await readPassphrase(options.passphraseFile) }),
  });
  const environment = () => ({ clock: systemClock, random: systemRandom, log: openLog({ program: "hub", level: "warn" }) });
  noun
    .command("backup")
    .description("write the hub's database into one file, while it runs or not")
    .argument("<file>", "where to; must not exist")
    .option("--config <file>", "the hub's configuration", defaultConfigFile)
    .option("--passphrase-file <file>", "put the master key in, sealed under this passphrase; without it keep master.key apart")
    .option("--with-blobs", "put the embedded blob service's files in: every pack of every vault")
    .addHelpText("after", backupText)
    .action(async (path: string, options: Options) => {
      const wish = await wishOf(path, options);
      const manifest = await backUpHub({ ...wish, blobs: options.withBlobs === true ? "included" : "absent" }, environment());
      const sizeBytes = manifest.files.reduce((sum, file) => sum + file.sizeBytes, 0);
      say(`backup written: ${path}, ${manifest.files.length} files, ${sizeBytes} bytes, schema ${manifest.schema}`);
      if (manifest.masterKey === "absent")
        say(`not in it: ${wish.config.stateDir}/master.key; without that key nothing in it can be opened`);
      if (manifest.blobs === "absent") say("not in it: the embedded blob service's files");
    });
  noun
    .command("restore")
    .description("restore a backup into an empty state folder and an empty database")
    .argument("<file>", "the backup")
    .option("--config <file>", "the configuration of the hub that is to be", defaultConfigFile)
    .option("--passphrase-file <file>", "the passphrase that the backup was made with")
    .addHelpText("after", restoreText)
    .action(async (path: string, options: Options) => {
      const wish = await wishOf(path, options);
      const manifest = await restoreHub(wish, environment());
      say(`hub restored as of ${manifest.createdAt}: start it with watari hub run --config ${options.config}`);
      if (manifest.masterKey === "absent") say(`put the hub's master key at ${wish.config.stateDir}/master.key first, mode 0600`);
      if (manifest.blobs === "absent") say("the embedded blob service's files were not in the backup: move them as well, if it had any");
    });
}
