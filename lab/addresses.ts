// The address plan of the closed network; docs/design/closed-network.md shows it as a table.

export const domain = "watari.test";

export const onprem = {
  network: "10.10.0.0/24",
  appliance: "10.10.0.10",
  vcenter: "10.10.0.20",
  dns: "10.10.0.53",
  /** The dmz's end of the wire: the proxy answers here, and nothing is forwarded. */
  gateway: "10.10.0.1",
  proxyPort: 3128,
  proxyWithPasswordPort: 3129,
  machines: "10.10.0.100-10.10.0.199",
} as const;

export const line = { network: "10.99.0.0/30", onprem: "10.99.0.1", landing: "10.99.0.2" } as const;

export const landing = {
  network: "10.200.0.0/24",
  bridge: "10.200.0.1",
  /** The hub's resolver; the lab only gives the address to the bridge. */
  dns: "10.200.0.53",
  endpoints: "10.200.0.4-10.200.0.50",
  machines: "10.200.0.100-10.200.0.199",
  machinesFirst: "10.200.0.100",
  machinesLast: "10.200.0.199",
} as const;

export const internet = {
  dmzLink: "203.0.113.0/30",
  dmz: "203.0.113.2",
  router: "203.0.113.1",
  dns: "198.51.100.53",
  /** The hub's public names. */
  hub: "198.51.100.10",
  /** Public names of services whose private endpoints are the only right way. */
  services: "198.51.100.11",
  hubAddresses: Array.from({ length: 10 }, (_, index) => `198.51.100.${10 + index}`),
  doorRouter: "192.0.2.1",
  doorHub: "192.0.2.2",
} as const;

/** Names that only the proxy may ask for. */
export const publicNames = [`management.${domain}`, `login.${domain}`, `download.${domain}`] as const;

/** Zones that the hub's resolver answers inside, and that the public view answers with a public address. */
export const splitZones = [
  `privatelink.blob.${domain}`,
  `blob.${domain}`,
  `privatelink.siterecovery.${domain}`,
  `siterecovery.${domain}`,
  `privatelink.prod.migration.${domain}`,
] as const;

/** Names that only the site knows. */
export const siteDomain = `corp.${domain}`;
