// Endpoints and names that are changed through one hub are served by each hub that has their network.

import type { Kysely } from "kysely";
import type { Log } from "../../base/log.ts";
import { notify, type Notifications } from "../db/notifications.ts";
import type { Tables } from "../db/tables.ts";
import type { PrivateLink } from "./private-link.ts";

const topic = "privateLink";

/** For those who change endpoints: this hub follows at once, the others when they hear of it. */
export function telling(here: PrivateLink, db: Kysely<Tables>): PrivateLink {
  const reconcile = async (): Promise<void> => {
    await here.reconcile();
    await notify(db, topic);
  };
  return { ...here, reconcile, faults: here.faults };
}

export function followChanges(here: PrivateLink, notifications: Notifications, log: Log): Disposable {
  return notifications.subscribe(topic, () => {
    // The next change or start tries again.
    here.reconcile().catch((error: unknown) => log.warn("private link not followed", { reason: String(error) }));
  });
}
