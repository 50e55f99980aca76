// What a role's machine can try of its plan: one target for each name that is reached by TCP.

import type { ProbeTarget } from "../probe.ts";
import type { PlanEndpoint } from "./endpoints.ts";
import type { PlanCell, PlanRole } from "./matrix.ts";
import type { PlanDocument } from "./plan-document.ts";

export interface PlanTargets {
  readonly targets: readonly ProbeTarget[];
  /** What cannot be tried from here, with the reason. */
  readonly untried: readonly { readonly id: string; readonly reason: string }[];
}

/** The targets of one role's cells, in their order. Pure. */
export function targetsOf(cells: readonly PlanCell[], lines: PlanDocument["lines"] = []): PlanTargets {
  const targets: ProbeTarget[] = [];
  const untried: { id: string; reason: string }[] = [];
  for (const { role, endpoint } of cells) {
    const reason = whyUntried(endpoint);
    if (reason === undefined)
      targets.push({ id: endpoint.id, role: role.id, port: endpoint.port, ...wayOf(endpoint), ...repairsOf(lines, role, endpoint) });
    else untried.push({ id: endpoint.id, reason });
  }
  return { targets, untried };
}

/** Behind a translation a filter sees another address than the role's own. */
function repairsOf(lines: PlanDocument["lines"], role: PlanRole, endpoint: PlanEndpoint): Pick<ProbeTarget, "repairs"> {
  if (endpoint.kind !== "private") return {};
  const line = lines.find(({ from, to }) => from === role.zone && to === endpoint.zone);
  if (line?.nat !== true) return {};
  const own = role.sources.join(", ");
  const repair =
    `the line ${line.from} → ${line.to} translates addresses: let the filter behind it accept TCP ${endpoint.port} from the address that ` +
    `it translates to, not from ${own}; see too whether the private endpoint's connection is approved`;
  return { repairs: { ConnectionFailed: repair } };
}

function whyUntried(endpoint: PlanEndpoint): string | undefined {
  if (endpoint.protocol === "udp") return "UDP says nothing about whether anybody listens; names are tried with every other check";
  if (endpoint.name.startsWith(".")) return "a suffix is no name that can be tried";
  if (endpoint.kind === "site" && !endpoint.hasName && endpoint.addresses.some((address) => address.includes("/")))
    return "a range of machines; each is tried when its agent is installed";
  return undefined;
}

function wayOf(endpoint: PlanEndpoint): Pick<ProbeTarget, "host" | "upTo" | "expectedAddresses"> {
  switch (endpoint.kind) {
    case "private":
      return { host: endpoint.name, upTo: "https", ...(endpoint.address === undefined ? {} : { expectedAddresses: [endpoint.address] }) };
    case "site": {
      const host = endpoint.hasName ? endpoint.name : (endpoint.addresses[0] ?? endpoint.name);
      // Their certificates are the site's own affair.
      return { host, upTo: "tcp", ...(endpoint.addresses.length === 0 ? {} : { expectedAddresses: endpoint.addresses }) };
    }
    case "public":
      return { host: endpoint.name, upTo: "https" };
  }
}
