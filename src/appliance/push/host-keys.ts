// Host keys of guests: the first one seen is pinned, and required from then on.

import { readText, type StateDatabase } from "../state/database.ts";

export interface HostKeys {
  /** Pins the fingerprint when none is known for "host:port"; answers the pinned one. */
  pin(hostPort: string, fingerprint: string): string;
  /** Whether there was one to forget. */
  forget(hostPort: string): boolean;
}

export function createHostKeys(database: StateDatabase): HostKeys {
  return {
    pin: (hostPort, fingerprint) => {
      database.run("INSERT INTO host_key (host, fingerprint) VALUES (?, ?) ON CONFLICT (host) DO NOTHING", hostPort, fingerprint);
      const row = database.one("SELECT fingerprint FROM host_key WHERE host = ?", hostPort);
      return row === undefined ? fingerprint : readText(row, "fingerprint");
    },
    forget: (hostPort) => {
      const isKnown = database.one("SELECT 1 AS known FROM host_key WHERE host = ?", hostPort) !== undefined;
      database.run("DELETE FROM host_key WHERE host = ?", hostPort);
      return isKnown;
    },
  };
}
