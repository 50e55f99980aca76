// Promises of a network plan: it refuses what leads nowhere, each cell is what the programs will decide, faults are found before building.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parse } from "yaml";
import { Fault } from "../../contract/errors.ts";
import { examplePlan } from "./example.ts";
import { planMatrix, type PlanFindingCode } from "./matrix.ts";
import { parsePlan, type PlanProfile } from "./plan-document.ts";
import { anyPlan, wholePlan } from "./test-plans.ts";

const findingsOf = (document: unknown): readonly PlanFindingCode[] => {
  const matrix = planMatrix(parsePlan(document));
  return [...new Set([...matrix.findings, ...matrix.cells.flatMap(({ findings }) => findings)].map(({ code }) => code))];
};

test("a plan shows each role's way to each endpoint that it needs, and nothing else", () => {
  const { cells } = planMatrix(parsePlan(wholePlan));
  const waysOf = (role: string): string[] =>
    cells.filter((cell) => cell.role.id === role).map(({ endpoint, way }) => `${endpoint.id}: ${way}`);
  assert.deepEqual(waysOf("agent"), [
    "appliance/control: directly, line branch → onprem",
    "appliance/data: directly, line branch → onprem",
    "ps2.corp.test/data: directly, line branch → onprem",
  ]);
  assert.deepEqual(waysOf("operator"), [
    "appliance/set-up: directly inside onprem",
    "dns/10.10.0.53: directly inside onprem",
    "public/management.watari.test: by http://10.10.0.1:3128",
    "public/login.watari.test: by http://10.10.0.1:3128",
  ]);
  assert.equal(waysOf("appliance").length, 13);
});

test("each example is a plan without errors, in every cloud", () => {
  for (const profile of ["watari", "azure-public", "azure-usgov", "azure-china"] satisfies PlanProfile[]) {
    const matrix = planMatrix(parsePlan(parse(examplePlan(profile))));
    const errors = [...matrix.findings, ...matrix.cells.flatMap(({ findings }) => findings)].filter(({ severity }) => severity === "error");
    assert.deepEqual(errors, [], profile);
  }
});

test("a cell's decision is the kind of its endpoint, whatever the plan", () => {
  const right = { private: ["private"], site: ["site", "private"], public: ["proxy", "public"] } as const;
  fc.assert(
    fc.property(anyPlan, (document) => {
      const { cells, endpoints } = planMatrix(parsePlan(document));
      assert.equal(new Set(endpoints.map(({ id }) => id)).size, endpoints.length, "ids are unique");
      for (const { endpoint, decision, role } of cells) {
        const expected: readonly string[] = right[endpoint.kind];
        assert.ok(expected.includes(decision), `${role.id} to ${endpoint.id}: ${decision}`);
        assert.ok(endpoint.kind !== "private" || decision === "private", "a private name goes by no other way");
      }
    }),
  );
});

test("a plan finds what cannot work", () => {
  const { zones, lines, privateEndpoints, roles, proxies } = wholePlan;
  const [vault, storage] = privateEndpoints;
  const cases: readonly (readonly [PlanFindingCode, object])[] = [
    ["AddressMissing", { privateEndpoints: [{ for: "storage", zone: "landing", account: "stwatari01" }] }],
    ["AddressOutsideZone", { privateEndpoints: [{ ...storage, address: "198.51.100.6" }] }],
    ["AddressShared", { privateEndpoints: [vault, { ...storage, address: "10.200.0.11" }] }],
    ["NameShared", { privateEndpoints: [storage, { ...storage, address: "10.200.0.7" }] }],
    ["LineMissing", { lines: lines.slice(1) }],
    ["LineMissing", { lines: [{ from: "landing", to: "onprem" }, ...lines.slice(1)] }],
    ["WayOutMissing", { zones: { ...zones, onprem: { ranges: ["10.10.0.0/24"] } } }],
    ["DatagramByProxy", { timeServers: [{ name: "time.example.test" }] }],
    [
      "NameUnresolved",
      { vcenters: [{ zone: "branch", name: "vcenter.corp.test" }], roles: { ...roles, appliance: { ...roles.appliance, zone: "branch" } } },
    ],
    ["ProxyAsksPassword", { proxies: { site: { ...proxies.site, authentication: "negotiate" } } }],
    ["ProxyInspects", { proxies: { site: { ...proxies.site, inspection: { authorityFile: "/ca.pem" } } } }],
    ["PacketsSmall", { lines: [{ ...lines[0], mtuBytes: 1000 }, ...lines.slice(1)] }],
  ];
  assert.deepEqual(findingsOf(wholePlan), []);
  for (const [code, change] of cases) assert.ok(findingsOf({ ...wholePlan, ...change }).includes(code), code);
});

test("a plan for Azure finds what the classic appliance cannot do", () => {
  const { domain: _domain, ...rest } = wholePlan;
  const azure = { ...rest, profile: "azure-public" };
  const site = wholePlan.proxies.site;
  assert.deepEqual(findingsOf(azure), []);
  assert.deepEqual(findingsOf({ ...azure, proxies: { site: { ...site, authentication: "basic" } } }), ["ProxyAsksPassword"]);
  assert.deepEqual(findingsOf({ ...azure, proxies: { site: { url: "https://10.10.0.1:3128" } } }), ["ProxyByTls"]);
  const translated = [{ ...wholePlan.lines[0], nat: true }, ...wholePlan.lines.slice(1)];
  assert.deepEqual(findingsOf({ ...azure, lines: translated }), ["LineTranslates"]);
  assert.deepEqual(findingsOf({ ...wholePlan, lines: translated }), []);
});

test("a plan that is not one is refused with each place", () => {
  const wrong: readonly (readonly [RegExp, object])[] = [
    [
      /zones\.onprem\.proxy: there is no proxy absent/,
      { zones: { ...wholePlan.zones, onprem: { ranges: ["10.10.0.0/24"], proxy: "absent" } } },
    ],
    [/lines\.0\.to: there is no zone nowhere/, { lines: [{ from: "onprem", to: "nowhere" }] }],
    [/domain: is needed/, { domain: undefined }],
    [/zones\.onprem\.ranges\.0/, { zones: { ...wholePlan.zones, onprem: { ranges: ["10.10.0.0/33"] } } }],
    [/proxies\.site\.url: holds credentials/, { proxies: { site: { url: "http://anna:geheim@10.10.0.1" } } }],
    [/Unrecognized key/, { unknownMember: 1 }],
    [/vcenters: vcenter\.corp\.test stands there twice/, { vcenters: [wholePlan.vcenters[0], wholePlan.vcenters[0]] }],
    [/addresses\.zzz9: no such service/, { privateEndpoints: [{ ...wholePlan.privateEndpoints[0], addresses: { zzz9: "10.200.0.9" } }] }],
    [/no document tells/, { profile: "azure-china", domain: undefined }],
  ];
  for (const [pattern, change] of wrong)
    assert.throws(
      () => parsePlan({ ...wholePlan, ...change }),
      (error) => {
        assert.ok(error instanceof Fault && error.code === "InputInvalid");
        assert.match(String(error.evidence["problems"]), pattern);
        return !JSON.stringify(error.evidence).includes("geheim");
      },
    );
});
