// Opens the sealer over the database's secrets, and refuses a master key that is not this database's.

import type { Kysely } from "kysely";
import { access } from "node:fs/promises";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { createSealer, openMasterKey, type Sealer } from "./secrets.ts";
import { findSetting, settingOf } from "./settings.ts";
import type { Tables } from "./tables.ts";

const settingName = "masterKeyCheck";
const label = "watari#master-key-check";

/** A database that has been used before never gets a new key: without the old one its secrets cannot be opened. */
export async function openSealer(wanted: { readonly db: Kysely<Tables>; readonly path: string; readonly random: Random }): Promise<Sealer> {
  const { db, path, random } = wanted;
  const present = await findSetting(db, settingName);
  if (present !== undefined && !(await exists(path)))
    throw new Fault("DataDamaged", "could not start the hub: the master key of its database is missing", {
      causes: ["this is a second hub of the database and the key was not copied to it", "the state folder was lost"],
      action: "copy master.key from another hub of this database or from where it was kept, with mode 0600",
      evidence: { path },
    });
  const sealer = createSealer(await openMasterKey(path, random), random);
  const fresh = (): string => Buffer.from(sealer.seal(label, Buffer.from("watari"))).toString("base64");
  const stored = await settingOf(db, settingName, fresh);
  sealer.open(label, Buffer.from(stored, "base64"));
  return sealer;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
