// Plans for tests: one that is whole, and arbitrary ones for properties.

import fc from "fast-check";
import { planMatrix } from "./matrix.ts";
import { parsePlan, type PlanInput } from "./plan-document.ts";
import type { RenderInput } from "./renderings/rendering.ts";

export const wholePlan = {
  version: 1,
  profile: "watari",
  domain: "watari.test",
  zones: {
    onprem: { ranges: ["10.10.0.0/24"], dnsServers: ["10.10.0.53"], proxy: "site" },
    branch: { ranges: ["10.20.0.0/24", "fd00:20::/64"] },
    landing: { ranges: ["10.200.0.0/24"], dnsServers: ["10.200.0.53"] },
  },
  lines: [
    { from: "onprem", to: "landing" },
    { from: "branch", to: "onprem" },
    { from: "onprem", to: "branch" },
  ],
  proxies: { site: { url: "http://10.10.0.1:3128" } },
  privateEndpoints: [
    {
      for: "vault",
      zone: "landing",
      vaultId: "4711",
      geo: "jpe",
      addresses: { id1: "10.200.0.11", rcm1: "10.200.0.12", srs1: "10.200.0.13", tel1: "10.200.0.4", prot2: "10.200.0.5" },
    },
    { for: "storage", zone: "landing", account: "stwatari01", address: "10.200.0.6" },
  ],
  vcenters: [{ zone: "onprem", name: "vcenter.corp.test", address: "10.10.0.20" }],
  timeServers: [{ zone: "onprem", name: "ntp.corp.test" }],
  roles: {
    appliance: { zone: "onprem", name: "appliance.corp.test", address: "10.10.0.10" },
    processServers: [{ zone: "onprem", name: "ps2.corp.test", address: "10.10.0.11" }],
    agents: { zone: "branch", ranges: ["10.20.0.0/24"] },
    operator: { zone: "onprem" },
  },
} as const satisfies PlanInput;

/** What a rendering takes, for a role of a plan. */
export function inputOf(document: unknown, roleId = "appliance", dnsMode: RenderInput["dnsMode"] = "records"): RenderInput {
  const plan = parsePlan(document);
  const matrix = planMatrix(plan);
  const role = matrix.roles.find(({ id }) => id === roleId);
  if (role === undefined) throw new Error(`the plan has no role ${roleId}`);
  return { plan, matrix, role, dnsMode };
}

const name = fc.stringMatching(/^[a-z][a-z0-9]{0,8}(\.[a-z]{2,5}){1,3}$/);
const addressIn = (third: number): fc.Arbitrary<string> => fc.integer({ min: 1, max: 254 }).map((last) => `10.${third}.0.${last}`);
const maybe = <T>(key: string, value: fc.Arbitrary<T>): fc.Arbitrary<Record<string, T>> =>
  fc.option(value).map((chosen) => (chosen === null ? {} : { [key]: chosen }));

/** Plans that parse; many of them cannot work, and say so. */
export const anyPlan: fc.Arbitrary<object> = fc
  .record({
    profile: fc.constantFrom("watari", "azure-public", "azure-usgov"),
    zones: fc.record({
      onprem: fc
        .record({ ranges: fc.constant(["10.10.0.0/24"]), dnsServers: fc.array(addressIn(10), { maxLength: 2 }) })
        .chain((zone) => fc.constantFrom<object>({ proxy: "site" }, {}, { internet: true }).map((out) => ({ ...zone, ...out }))),
      landing: fc.record({ ranges: fc.constant(["10.200.0.0/24"]), dnsServers: fc.array(addressIn(200), { maxLength: 1 }) }),
    }),
    lines: fc.subarray([
      { from: "onprem", to: "landing" },
      { from: "landing", to: "onprem", nat: true, mtuBytes: 1000 },
    ]),
    proxies: fc
      .record({
        url: fc.constantFrom("http://10.10.0.1:3128", "https://proxy.corp.test:8443", "http://proxy.corp.test"),
        authentication: fc.constantFrom("none", "basic", "negotiate"),
      })
      .map((site) => ({ site })),
    privateEndpoints: fc.array(
      fc.oneof(
        fc.record({
          for: fc.constant("vault"),
          zone: fc.constant("landing"),
          vaultId: fc.stringMatching(/^[0-9]{4,8}$/),
          geo: fc.constant("jpe"),
          addresses: fc.record({ id1: addressIn(200), rcm1: addressIn(201) }, { requiredKeys: [] }),
        }),
        fc
          .record({ for: fc.constant("storage"), zone: fc.constant("landing"), account: fc.stringMatching(/^[a-z]{3,12}$/) })
          .chain((endpoint) => maybe("address", addressIn(200)).map((more) => ({ ...endpoint, ...more }))),
      ),
      { maxLength: 4 },
    ),
    vcenters: fc.uniqueArray(
      name.chain((vcenter) => maybe("address", addressIn(10)).map((more) => ({ zone: "onprem", name: vcenter, ...more }))),
      { maxLength: 3, selector: (each) => each.name },
    ),
    roles: fc.record({
      appliance: fc.record({ zone: fc.constantFrom("onprem", "landing"), address: addressIn(10) }),
      agents: fc.record({ zone: fc.constant("onprem"), ranges: fc.array(fc.constant("10.10.0.64/26"), { maxLength: 1 }) }),
    }),
  })
  .map((plan) => ({ version: 1, ...plan, ...(plan.profile === "watari" ? { domain: "watari.test" } : {}) }));
