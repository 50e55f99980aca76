// The plan that `watari net init` prints: the article's network, with a comment where a person has to decide.

import type { PlanProfile } from "./plan-document.ts";

/** YAML of a whole plan for a profile. Its addresses are examples. */
export function examplePlan(profile: PlanProfile): string {
  const isAzure = profile !== "watari";
  const vaultEndpoint = `  # One entry for each private endpoint. Its DNS settings tell names and addresses; leave out an address that is not known yet.
  - for: vault
    zone: landing
    vaultId: "${isAzure ? "1234567890123456789" : "0b0f8b9e-1f0c-4a53-9d0e-6a1c5f2f7d10"}"
    geo: ${isAzure ? "jpe" : "japaneast"}
    addresses: { id1: 10.200.0.11, rcm1: 10.200.0.12, srs1: 10.200.0.13, tel1: 10.200.0.4, prot2: 10.200.0.5 }
`;
  return `# The closed network, in one file. Check it with "watari net plan", write it for other programs with "watari net render".
version: 1
profile: ${profile}
${isAzure ? "" : "domain: watari.example\n"}
zones:
  onprem:
    ranges: [10.10.0.0/24]
    dnsServers: [10.10.0.53]   # none: names come from hosts files
    proxy: site                # the only way out
  landing:
    ranges: [10.200.0.0/24]
    dnsServers: [10.200.0.53]

lines:                         # who may open connections to whom
  - { from: onprem, to: landing }

proxies:
  site:
    url: http://10.10.0.1:3128
    # authentication: basic
    # credentialsFile: /etc/watari/proxy-credentials
    # inspection: { authorityFile: /etc/ssl/proxy-ca.pem, exempt: ["login.example.com"] }

privateEndpoints:
${profile === "azure-china" ? "" : vaultEndpoint}  - { for: storage, zone: landing, account: stwatari01, address: 10.200.0.6 }
  - for: project
    zone: landing
    why: the project
    names:
      - { name: demo.japaneast.hub.privatelink.prod.migration.${isAzure ? "windowsazure.com" : "watari.example"}, address: 10.200.0.7 }

vcenters:
  - { zone: onprem, name: vcenter.corp.example, address: 10.10.0.20 }

timeServers:
  - { zone: onprem, name: ntp.corp.example }

roles:
  appliance: { zone: onprem, name: appliance.corp.example, address: 10.10.0.10 }
  agents: { zone: onprem, ranges: [10.10.0.96/27] }
  operator: { zone: onprem }
`;
}
