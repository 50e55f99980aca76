// The database of a configuration for commands that work beside the hub: as the user that the hub runs as, whether the hub runs or not.

import { access, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { userInfo } from "node:os";
import type { Log } from "../base/log.ts";
import { tryCommand } from "../base/run-command.ts";
import { Fault } from "../contract/errors.ts";
import type { DatabaseAddress } from "./db/database.ts";
import { privateAddress, startPrivateCluster } from "./db/private-cluster.ts";
import { readServerAddress } from "./db/server-address.ts";
import type { HubConfig } from "./hub-config.ts";

/** Where the database of a hub that must run is; a private cluster that does not run is a fault. */
export async function runningDatabase(config: HubConfig): Promise<DatabaseAddress> {
  if (config.databaseUrl !== undefined) return await readServerAddress({ ...config, url: config.databaseUrl });
  await requireHubUser(config);
  const address = privateAddress(config.stateDir);
  if (await isThere(join(address.socketFolder, ".s.PGSQL.5432"))) return address;
  throw new Fault("DatabaseUnavailable", "could not reach the hub's database: the hub does not run", {
    evidence: { stateDir: config.stateDir },
    causes: ["the hub was not started, or runs with another configuration"],
    action: "start the hub, then call again",
  });
}

/** A private cluster that a hub uses is left running; one that was started for this is stopped again. None is made. */
export async function withDatabase<T>(config: HubConfig, log: Log, task: (address: DatabaseAddress) => Promise<T>): Promise<T> {
  if (config.databaseUrl !== undefined) return await task(await readServerAddress({ ...config, url: config.databaseUrl }));
  await requireHubUser(config);
  if (!(await isThere(join(config.stateDir, "pg", "data", "watari-ready"))))
    throw new Fault("NotFound", "could not find the hub's database: no hub has been started with this configuration", {
      evidence: { stateDir: config.stateDir },
      action: "name the configuration that the hub runs with",
    });
  return await withCluster(config, log, task);
}

/** As withDatabase, and makes the cluster when there is none. */
export async function withCluster<T>(config: HubConfig, log: Log, task: (address: DatabaseAddress) => Promise<T>): Promise<T> {
  if (config.databaseUrl !== undefined) return await task(await readServerAddress({ ...config, url: config.databaseUrl }));
  await requireHubUser(config);
  const cluster = await startPrivateCluster({ stateDir: config.stateDir, log });
  try {
    const { socketFolder, user, database } = cluster;
    return await task({ kind: "socket", socketFolder, user, database });
  } finally {
    if (!cluster.wasRunning) await cluster.stop();
  }
}

/** Another user could not open the database, and root would leave files that the hub cannot open. */
async function requireHubUser({ stateDir }: HubConfig): Promise<void> {
  const { uid, path } = await ownerOf(stateDir);
  const self = userInfo();
  if (uid === self.uid || (self.uid !== 0 && path !== stateDir)) return;
  const { stdout } = await tryCommand("id", ["-nu", String(uid)]);
  const name = stdout.trim() === "" ? `#${uid}` : stdout.trim();
  throw new Fault("InputInvalid", `could not work on the hub's state as ${self.username}: it belongs to ${name}`, {
    evidence: { stateDir, owner: name },
    action: `call this as that user: runuser -u ${name} -- watari hub …`,
  });
}

/** Of the folder, or of the nearest one above it that is there. */
async function ownerOf(folder: string): Promise<{ readonly uid: number; readonly path: string }> {
  for (let path = folder; ; path = dirname(path)) {
    const found = await stat(path).catch(() => undefined); // Not made yet, or closed to us: the one above tells.
    if (found !== undefined) return { uid: found.uid, path };
    if (path === dirname(path)) return { uid: 0, path };
  }
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
