// Programs that keep generations of a disk image and look for changes by reading all of it, each set up as its manual advises for images.

import { mkdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { measureChildren, runToEnd, type Measured } from "./measured.ts";

export interface BackupPeer {
  readonly name: string;
  readonly program: string;
  /** Makes an empty repository in the folder. */
  prepare(folder: string): Promise<void>;
  /** Adds a generation: first of all content, later of what a scan finds changed. */
  backup(image: string, folder: string, generation: string): Promise<Measured>;
  /** Reads the generation back; its files are gone on return. */
  readonly restore?: { readonly name: string; measure(image: string, folder: string, generation: string): Promise<Measured> };
}

/** borg: no encryption, zstd as we use it, pieces of our block size, which suits images best. */
const borg: BackupPeer = {
  name: "borg, fixed 64 KiB, zstd",
  program: "borg",
  prepare: async (folder) => await runToEnd({ command: "borg", args: ["init", "-e", "none", join(folder, "borg")], env: borgEnv(folder) }),
  backup: async (image, folder, generation) => {
    const chunks = ["-C", "zstd,1", "--chunker-params", "fixed,65536"];
    const args = ["create", ...chunks, `${join(folder, "borg")}::${generation}`, image];
    return await measureChildren(async () => await runToEnd({ command: "borg", args, env: borgEnv(folder) }));
  },
  restore: {
    name: "borg extract, to nowhere",
    measure: async (_image, folder, generation) => {
      const args = ["extract", "--stdout", `${join(folder, "borg")}::${generation}`];
      return await measureChildren(async () => await runToEnd({ command: "borg", args, env: borgEnv(folder) }));
    },
  },
};

const restic: BackupPeer = {
  name: "restic",
  program: "restic",
  prepare: async (folder) =>
    await runToEnd({ command: "restic", args: ["init", "-q", "--repository-version", "2"], env: resticEnv(folder) }),
  backup: async (image, folder) =>
    await measureChildren(async () => await runToEnd({ command: "restic", args: ["backup", "-q", image], env: resticEnv(folder) })),
  restore: {
    name: "restic restore, to a file",
    measure: async (image, folder) => {
      const target = join(folder, "restored");
      const args = ["restore", "-q", "latest", "--target", target, "--include", join(dirname(image), basename(image))];
      const measured = await measureChildren(async () => await runToEnd({ command: "restic", args, env: resticEnv(folder) }));
      await rm(target, { recursive: true });
      return measured;
    },
  },
};

const casync: BackupPeer = {
  name: "casync",
  program: "casync",
  prepare: async (folder) => void (await mkdir(join(folder, "casync"), { recursive: true })),
  backup: async (image, folder, generation) => {
    const args = ["make", `--store=${join(folder, "casync")}`, join(folder, `${generation}.caibx`), image];
    return await measureChildren(async () => await runToEnd({ command: "casync", args }));
  },
};

/** It looks at the content whatever the times say: a file that was changed in the second in which it was copied would count as the same. */
const rsync: BackupPeer = {
  name: "rsync --inplace",
  program: "rsync",
  prepare: async (folder) => void (await mkdir(join(folder, "rsync"), { recursive: true })),
  backup: async (image, folder) => {
    const args = ["--inplace", "--sparse", "--no-whole-file", "--ignore-times", image, join(folder, "rsync", basename(image))];
    return await measureChildren(async () => await runToEnd({ command: "rsync", args }));
  },
};

export const backupPeers: readonly BackupPeer[] = [borg, restic, casync, rsync];

function borgEnv(folder: string): NodeJS.ProcessEnv {
  return { ...process.env, BORG_BASE_DIR: join(folder, "borg-home"), BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: "yes" };
}

function resticEnv(folder: string): NodeJS.ProcessEnv {
  const own = { RESTIC_REPOSITORY: join(folder, "restic"), RESTIC_CACHE_DIR: join(folder, "restic-cache"), RESTIC_PASSWORD: "bench" };
  return { ...process.env, ...own };
}
