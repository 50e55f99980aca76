// Names of private resources: which members an endpoint has, under which names each is asked for, and where public clients look.

import { privateServices, type PrivateService } from "../../contract/appliance-protocol.ts";

/** A resource as naming needs it. */
export type LinkTarget =
  | { readonly kind: "vault"; readonly vaultId: string; readonly location: string }
  | { readonly kind: "storage"; readonly account: string }
  | { readonly kind: "project"; readonly project: string; readonly location: string };

/** One address of an endpoint. */
export interface LinkMember {
  readonly member: string;
  /** The name that clients use, as the DNS settings list it. */
  readonly fqdn: string;
  /** Zone and record that make the name private. */
  readonly zone: string;
  readonly recordName: string;
  /** Every name that the member's listener serves. */
  readonly serverNames: readonly string[];
  /** The same service's name at the public door. */
  readonly publicName: string;
  /** Set when clients use a public name that leads to the private zone by a CNAME. */
  readonly alias?: { readonly name: string; readonly target: string };
}

export const groupIds = { vault: "AzureSiteRecovery", storage: "blob", project: "Default" } as const;

// oxlint-disable-next-line typescript/consistent-return -- every kind answers; the compiler proves it
export function membersOf(target: LinkTarget, domain: string): readonly LinkMember[] {
  switch (target.kind) {
    case "vault":
      return privateServices.map((service) => vaultMember(target, service, domain));
    case "storage":
      return [storageMember(target.account, domain)];
    case "project":
      return [projectMember(target, domain)];
  }
}

/** Region names are written in many ways ("Japan East"); in DNS names only letters and digits stay. */
function toRegion(location: string): string {
  return location.toLowerCase().replace(/[^a-z0-9]/g, "") || "local";
}

function vaultMember(target: { readonly vaultId: string; readonly location: string }, service: PrivateService, domain: string): LinkMember {
  const zone = `privatelink.siterecovery.${domain}`;
  const host = `${target.vaultId}-asr-pod01-${service}.${toRegion(target.location)}`;
  const fqdn = `${host}.${zone}`;
  const publicName = `${host}.siterecovery.${domain}`;
  return {
    member: service,
    fqdn,
    zone,
    recordName: host,
    serverNames: [fqdn, publicName],
    publicName,
    alias: { name: publicName, target: fqdn },
  };
}

function storageMember(account: string, domain: string): LinkMember {
  const zone = `privatelink.blob.${domain}`;
  const fqdn = `${account}.blob.${domain}`;
  const target = `${account}.${zone}`;
  return { member: "blob", fqdn, zone, recordName: account, serverNames: [fqdn, target], publicName: fqdn, alias: { name: fqdn, target } };
}

function projectMember(target: { readonly project: string; readonly location: string }, domain: string): LinkMember {
  const zone = `privatelink.prod.migration.${domain}`;
  const recordName = `${target.project.toLowerCase()}.${toRegion(target.location)}.hub`;
  const fqdn = `${recordName}.${zone}`;
  const publicName = `${recordName}.prod.migration.${domain}`;
  return {
    member: "Default",
    fqdn,
    zone,
    recordName,
    serverNames: [fqdn, publicName],
    publicName,
    alias: { name: publicName, target: fqdn },
  };
}
