// The configuration of a move's hub: everything on loopback addresses of its own. Pure.

import type { Site, MoveRecord } from "./site.ts";

/** Names of what the move makes in its hub. */
export const hubNames = {
  domain: "move.watari.internal",
  network: "landing",
  /** A network that reaches nothing: where a machine boots that is only to become files. */
  sealedNetwork: "sealed",
  project: "project",
  storage: "watarimove",
  vault: "vault",
  policy: "default",
} as const;

export function hubAddressOf({ hubOctet }: Pick<MoveRecord, "hubOctet">): string {
  return `127.90.${hubOctet}.1`;
}

export function hubRangeOf({ hubOctet }: Pick<MoveRecord, "hubOctet">): string {
  return `127.90.${hubOctet}.0/24`;
}

/** What `watari hub run --config` reads. */
export function hubConfigOf(site: Site, record: MoveRecord): object {
  const { network, forwards, exportFolder, hubPort } = record;
  return {
    domain: hubNames.domain,
    stateDir: site.hubState,
    publicAddresses: [hubAddressOf(record)],
    managementPort: hubPort,
    endpointPort: hubPort,
    networks: [{ virtualNetwork: hubNames.network, cidr: hubRangeOf(record) }],
    landing: {
      networks: {
        [hubNames.network]: network.kind === "user" ? { kind: "user", forwards } : network,
        [hubNames.sealedNetwork]: { kind: "user", forwards, isSealed: true },
      },
      ...(exportFolder === undefined ? {} : { exportFolder }),
    },
  };
}

/** Every name that the appliance asks for, as its fixed answers: no resolver of this machine is touched. */
export function hostEntries(record: MoveRecord): readonly string[] {
  const own = ["management", "login", "download"].map((name) => `${name}.${hubNames.domain}=${hubAddressOf(record)}`);
  return [...own, ...(record.hubNames ?? []).map(({ name, addresses }) => `${name}=${addresses.join(",")}`)];
}
