// The names of each cloud's services: private suffixes, and what goes to the outer world by the proxy, with the reason.

import type { PlanProfile } from "./plan-document.ts";

/** When a public name is needed: all the time, only while the appliance is set up, or not necessarily. */
export type Need = "always" | "set-up" | "optional";

export interface PublicService {
  /** Exact name, or a suffix that begins with a dot. */
  readonly name: string;
  readonly port: number;
  readonly why: string;
  readonly need: Need;
  readonly roles: readonly ("appliance" | "operator")[];
}

export interface CloudNames {
  /** The five (or more) services of a vault's endpoint. */
  readonly vaultServices: readonly string[];
  /** Private zone of the vault's names; undefined where no document tells it: the names are then given one by one. */
  readonly vaultZone: string | undefined;
  /** Zone of the storage account's public names; its private zone is the same below "privatelink.". */
  readonly blobZone: string;
  readonly publicServices: readonly PublicService[];
  /** What this cloud's own appliance cannot do, where ours can. */
  readonly limits: { readonly proxyByTls: boolean; readonly proxyWithPassword: boolean; readonly nat: boolean };
}

const vaultServices = ["id1", "rcm1", "srs1", "tel1", "prot2"] as const;
const applianceOnly = ["appliance"] as const;
const both = ["appliance", "operator"] as const;

function web(name: string, why: string, need: Need, roles: PublicService["roles"] = applianceOnly): PublicService {
  return { name, port: 443, why, need, roles };
}

/** Names of a cloud. Azure's are those of its documents for the agent-based path with private endpoints. */
export function cloudNames(profile: PlanProfile, domain: string | undefined): CloudNames {
  if (profile === "watari") return watariNames(domain ?? "");
  return azure[profile];
}

function watariNames(domain: string): CloudNames {
  return {
    vaultServices,
    vaultZone: `privatelink.siterecovery.${domain}`,
    blobZone: `blob.${domain}`,
    publicServices: [
      web(`management.${domain}`, "the hub's API", "always", both),
      web(`login.${domain}`, "sign-in", "always", both),
      web(`download.${domain}`, "packages of agent and appliance", "optional"),
    ],
    limits: { proxyByTls: true, proxyWithPassword: true, nat: true },
  };
}

/** The classic replication appliance: no proxy by HTTPS, none that asks for a password, no address translation. */
const classicLimits = { proxyByTls: false, proxyWithPassword: false, nat: false } as const;

const azure: Readonly<Record<Exclude<PlanProfile, "watari">, CloudNames>> = {
  "azure-public": {
    vaultServices,
    vaultZone: "privatelink.siterecovery.windowsazure.com",
    blobZone: "blob.core.windows.net",
    publicServices: [
      web("management.azure.com", "Azure Resource Manager", "always", both),
      web(".management.azure.com", "Azure Resource Manager, regional", "always", both),
      web("login.microsoftonline.com", "Entra ID", "always", both),
      web("login.windows.net", "Entra ID", "always", both),
      web("portal.azure.com", "the portal", "always", ["operator"]),
      web("www.live.com", "sign-in of the OVA's set-up", "set-up"),
      web("www.microsoft.com", "sign-in of the OVA's set-up", "set-up"),
      web("login.live.com", "sign-in of the OVA's set-up", "set-up"),
      web("secure.aadcdn.microsoftonline-p.com", "sign-in of the OVA's set-up", "set-up"),
      web("graph.windows.net", "registration of the appliance's Entra application", "set-up"),
      web("dev.mysql.com", "installer of MySQL, unless it lies in C:\\Temp\\ASRSetup before", "set-up"),
      web("cdn.mysql.com", "where dev.mysql.com redirects to", "set-up"),
      web(".services.visualstudio.com", "telemetry", "optional"),
    ],
    limits: classicLimits,
  },
  "azure-usgov": {
    vaultServices,
    vaultZone: "privatelink.siterecovery.windowsazure.us",
    blobZone: "blob.core.usgovcloudapi.net",
    publicServices: [
      web("management.usgovcloudapi.net", "Azure Resource Manager", "always", both),
      web("login.microsoftonline.us", "Entra ID", "always", both),
      web("portal.azure.us", "the portal", "always", ["operator"]),
      web("dev.mysql.com", "installer of MySQL, unless it lies in C:\\Temp\\ASRSetup before", "set-up"),
      web("cdn.mysql.com", "where dev.mysql.com redirects to", "set-up"),
    ],
    limits: classicLimits,
  },
  "azure-china": {
    vaultServices,
    vaultZone: undefined,
    blobZone: "blob.core.chinacloudapi.cn",
    publicServices: [
      web("management.chinacloudapi.cn", "Azure Resource Manager", "always", both),
      web("login.microsoftonline.cn", "Entra ID", "always", both),
      web("login.chinacloudapi.cn", "Entra ID", "always", both),
      web("portal.azure.cn", "the portal", "always", ["operator"]),
      web("graph.chinacloudapi.cn", "registration of the appliance's Entra application", "set-up"),
      web("dev.mysql.com", "installer of MySQL, unless it lies in C:\\Temp\\ASRSetup before", "set-up"),
      web("cdn.mysql.com", "where dev.mysql.com redirects to", "set-up"),
    ],
    limits: classicLimits,
  },
};
