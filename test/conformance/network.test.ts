// Microsoft.Network by Microsoft's unmodified clients, and Microsoft.Migrate by the calls that it documents.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { NetworkManagementClient, type VirtualNetwork } from "@azure/arm-network";
import { PrivateDnsManagementClient, type RecordSet, type RecordType } from "@azure/arm-privatedns";
import { collect } from "./journey/wait-until.ts";
import { checkTable, refused, works } from "./operation-table.ts";
import { startRig, type Rig } from "./rig.ts";

let rig: Rig;
let network: NetworkManagementClient;
let dns: PrivateDnsManagementClient;
let group = "";
let net: VirtualNetwork;
const names = (list: readonly { readonly name?: string | undefined }[]): readonly (string | undefined)[] => list.map(({ name }) => name);
const unsupported = "OperationNotSupported";

before(async () => {
  rig = await startRig({ machines: 1 });
  network = new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  dns = new PrivateDnsManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  group = rig.resourceGroup;
  const [first] = await collect(network.virtualNetworks.list(group));
  assert.ok(first !== undefined);
  net = first;
  zoneNames = (await collect(dns.privateZones.list())).map(({ name = "" }) => name);
  await migrate("PUT", "", { location: "local", properties: {} });
});
after(async () => await rig[Symbol.asyncDispose]());

const at = (): [string, string] => [group, net.name ?? ""];
const subnetAt = (): [string, string, string] => [...at(), net.subnets?.[0]?.name ?? ""];
const notRouted = "routes and filters nothing";
const scaleSets = "run on the one host";

async function firstInterface(): Promise<[string, string]> {
  const [nic] = await collect(network.networkInterfaces.list(group));
  return [group, nic?.name ?? ""];
}

describe("Microsoft.Network", () => {
  const own = "of this hub only";
  checkTable(
    {
      virtualNetworks: () => network.virtualNetworks,
      subnets: () => network.subnets,
      privateEndpoints: () => network.privateEndpoints,
      privateDnsZoneGroups: () => network.privateDnsZoneGroups,
      networkInterfaces: () => network.networkInterfaces,
      networkInterfaceIPConfigurations: () => network.networkInterfaceIPConfigurations,
      networkInterfaceTapConfigurations: () => network.networkInterfaceTapConfigurations,
      networkInterfaceLoadBalancers: () => network.networkInterfaceLoadBalancers,
      availablePrivateEndpointTypes: () => network.availablePrivateEndpointTypes,
      usages: () => network.usages,
      serviceTags: () => network.serviceTags,
      privateLinkServices: () => network.privateLinkServices,
    },
    {
      "virtualNetworks.get": works(async () => assert.equal((await network.virtualNetworks.get(...at())).id, net.id)),
      "virtualNetworks.list": works(async () => assert.ok((await collect(network.virtualNetworks.list(group))).length > 0)),
      "virtualNetworks.listAll": works(async () => assert.ok(names(await collect(network.virtualNetworks.listAll())).includes(net.name))),
      "virtualNetworks.createOrUpdate": works(async () => {
        const same = await network.virtualNetworks.createOrUpdate(...at(), net);
        assert.deepEqual(names(same.subnets ?? []), names(net.subnets ?? []));
      }),
      "virtualNetworks.createOrUpdate of an unknown network": refused(
        "InvalidRequestContent",
        "has no such network",
        async () => await network.virtualNetworks.createOrUpdate(group, "elsewhere", { ...net, name: "elsewhere" }),
      ),
      "virtualNetworks.updateTags": works(async () =>
        assert.deepEqual((await network.virtualNetworks.updateTags(...at(), { tags: { a: "1" } })).tags, { a: "1" }),
      ),
      "virtualNetworks.listUsage": works(async () => {
        const [usage] = await collect(network.virtualNetworks.listUsage(...at()));
        assert.ok((usage?.currentValue ?? 0) > 0 && (usage?.limit ?? 0) > 0);
      }),
      "virtualNetworks.checkIPAddressAvailability": works(async () => {
        const [nic] = await collect(network.networkInterfaces.list(group));
        const address = nic?.ipConfigurations?.[0]?.privateIPAddress ?? "";
        const answer = await network.virtualNetworks.checkIPAddressAvailability(...at(), address);
        assert.equal(answer.available, false);
        const [free = ""] = answer.availableIPAddresses ?? [];
        assert.equal((await network.virtualNetworks.checkIPAddressAvailability(...at(), free)).available, true);
      }),
      "virtualNetworks.listDdosProtectionStatus": refused(
        unsupported,
        notRouted,
        async () => await collect(network.virtualNetworks.listDdosProtectionStatus(...at())),
      ),
      "virtualNetworks.moveIpConfigurations": refused(
        unsupported,
        notRouted,
        async () => await network.virtualNetworks.moveIpConfigurations(...at(), { moveIpConfigurationItems: [] }),
      ),
      "virtualNetworks.delete": refused("Conflict", "addresses in it", async () => await network.virtualNetworks.delete(...at())),
      "subnets.get": works(async () => assert.equal((await network.subnets.get(...subnetAt())).provisioningState, "Succeeded")),
      "subnets.list": works(async () => assert.ok((await collect(network.subnets.list(...at()))).length > 0)),
      "subnets.createOrUpdate": works(async () => {
        const subnet = await network.subnets.get(...subnetAt());
        assert.equal((await network.subnets.createOrUpdate(...subnetAt(), subnet)).addressPrefix, subnet.addressPrefix);
      }),
      "subnets.createOrUpdate with a route table": refused("InvalidRequestContent", "routeTable cannot be set here", async () => {
        const subnet = await network.subnets.get(...subnetAt());
        await network.subnets.createOrUpdate(...subnetAt(), { ...subnet, routeTable: { id: "x", location: "y" } });
      }),
      "subnets.delete": refused("Conflict", "addresses in it", async () => await network.subnets.delete(...subnetAt())),
      "subnets.prepareNetworkPolicies": refused(
        unsupported,
        notRouted,
        async () => await network.subnets.prepareNetworkPolicies(...subnetAt(), {}),
      ),
      "subnets.unprepareNetworkPolicies": refused(
        unsupported,
        notRouted,
        async () => await network.subnets.unprepareNetworkPolicies(...subnetAt(), {}),
      ),
      "privateEndpoints.createOrUpdate": works(async () => {
        const made = await network.privateEndpoints.createOrUpdate(group, "manual", manual("manual-nic"));
        assert.equal(made.manualPrivateLinkServiceConnections?.[0]?.privateLinkServiceConnectionState?.status, "Pending");
        assert.match(made.networkInterfaces?.[0]?.id ?? "", /manual-nic$/);
      }),
      "privateEndpoints.createOrUpdate with addresses of its own": refused(
        "InvalidRequestContent",
        "ipConfigurations cannot be set here",
        async () =>
          await network.privateEndpoints.createOrUpdate(group, "fixed", {
            ...manual("fixed-nic"),
            ipConfigurations: [{ name: "a", privateIPAddress: "192.0.2.1" }],
          }),
      ),
      "privateEndpoints.createOrUpdate with a taken interface": refused(
        "Conflict",
        "interface is taken",
        async () => await network.privateEndpoints.createOrUpdate(group, "second", manual("manual-nic")),
      ),
      "privateEndpoints.get": works(async () => assert.equal((await network.privateEndpoints.get(group, "manual")).name, "manual")),
      "privateEndpoints.list": works(async () => assert.ok(names(await collect(network.privateEndpoints.list(group))).includes("manual"))),
      "privateEndpoints.listBySubscription": works(async () =>
        assert.ok(names(await collect(network.privateEndpoints.listBySubscription())).includes("manual")),
      ),
      "privateDnsZoneGroups.list": works(async () => {
        const endpoints = await collect(network.privateEndpoints.list(group));
        const counts = await Promise.all(
          endpoints.map(async ({ name = "" }) => (await collect(network.privateDnsZoneGroups.list(group, name))).length),
        );
        assert.ok(counts.some((count) => count > 0));
      }),
      "privateDnsZoneGroups.createOrUpdate": works(async () => {
        await dns.privateZones.createOrUpdate(group, migrationZone(), { location: "global" });
        const zone = await dns.privateZones.get(group, migrationZone());
        const config = { name: "zone", privateDnsZoneId: zone.id ?? "" };
        const made = await network.privateDnsZoneGroups.createOrUpdate(group, "manual", "default", { privateDnsZoneConfigs: [config] });
        assert.equal(made.privateDnsZoneConfigs?.[0]?.recordSets?.length, 1);
      }),
      "privateDnsZoneGroups.get": works(async () =>
        assert.equal((await network.privateDnsZoneGroups.get(group, "manual", "default")).name, "default"),
      ),
      "privateDnsZoneGroups.delete": works(async () => {
        await network.privateDnsZoneGroups.delete(group, "manual", "default");
        const left = await collect(dns.recordSets.listByType(group, migrationZone(), "A"));
        assert.deepEqual(left, []);
      }),
      "networkInterfaces.get": works(async () => {
        const nic = await network.networkInterfaces.get(...(await firstInterface()));
        assert.ok((nic.ipConfigurations?.length ?? 0) > 0 && nic.privateEndpoint?.id !== undefined);
      }),
      "networkInterfaces.list": works(async () => assert.ok((await collect(network.networkInterfaces.list(group))).length > 0)),
      "networkInterfaces.listAll": works(async () => assert.ok((await collect(network.networkInterfaces.listAll())).length > 0)),
      "networkInterfaces.updateTags": works(async () => {
        const changed = await network.networkInterfaces.updateTags(...(await firstInterface()), { tags: { seen: "yes" } });
        assert.deepEqual(changed.tags, { seen: "yes" });
      }),
      "networkInterfaces.createOrUpdate": refused(
        "MethodNotAllowed",
        "makes and removes interfaces",
        async () => await network.networkInterfaces.createOrUpdate(...(await firstInterface()), { location: "local" }),
      ),
      "networkInterfaces.delete": refused(
        "MethodNotAllowed",
        "makes and removes interfaces",
        async () => await network.networkInterfaces.delete(...(await firstInterface())),
      ),
      "networkInterfaces.getEffectiveRouteTable": refused(
        unsupported,
        notRouted,
        async () => await network.networkInterfaces.beginGetEffectiveRouteTableAndWait(...(await firstInterface())),
      ),
      "networkInterfaces.listEffectiveNetworkSecurityGroups": refused(
        unsupported,
        notRouted,
        async () => await network.networkInterfaces.beginListEffectiveNetworkSecurityGroupsAndWait(...(await firstInterface())),
      ),
      ...refusals("networkInterfaces", scaleSets, {
        listVirtualMachineScaleSetNetworkInterfaces: async () =>
          await collect(network.networkInterfaces.listVirtualMachineScaleSetNetworkInterfaces(group, "s")),
        listVirtualMachineScaleSetVMNetworkInterfaces: async () =>
          await collect(network.networkInterfaces.listVirtualMachineScaleSetVMNetworkInterfaces(group, "s", "0")),
        getVirtualMachineScaleSetNetworkInterface: async () =>
          await network.networkInterfaces.getVirtualMachineScaleSetNetworkInterface(group, "s", "0", "n"),
        listVirtualMachineScaleSetIpConfigurations: async () =>
          await collect(network.networkInterfaces.listVirtualMachineScaleSetIpConfigurations(group, "s", "0", "n")),
        getVirtualMachineScaleSetIpConfiguration: async () =>
          await network.networkInterfaces.getVirtualMachineScaleSetIpConfiguration(group, "s", "0", "n", "c"),
        listCloudServiceNetworkInterfaces: async () =>
          await collect(network.networkInterfaces.listCloudServiceNetworkInterfaces(group, "s")),
        listCloudServiceRoleInstanceNetworkInterfaces: async () =>
          await collect(network.networkInterfaces.listCloudServiceRoleInstanceNetworkInterfaces(group, "s", "r")),
        getCloudServiceNetworkInterface: async () => await network.networkInterfaces.getCloudServiceNetworkInterface(group, "s", "r", "n"),
      }),
      "networkInterfaceIPConfigurations.list": works(async () =>
        assert.ok((await collect(network.networkInterfaceIPConfigurations.list(...(await firstInterface())))).length > 0),
      ),
      "networkInterfaceIPConfigurations.get": works(async () => {
        const nic = await firstInterface();
        const [first] = await collect(network.networkInterfaceIPConfigurations.list(...nic));
        const found = await network.networkInterfaceIPConfigurations.get(...nic, first?.name ?? "");
        assert.equal(found.privateIPAddress, first?.privateIPAddress);
      }),
      ...refusals("networkInterfaceTapConfigurations", notRouted, {
        list: async () => await collect(network.networkInterfaceTapConfigurations.list(...(await firstInterface()))),
        get: async () => await network.networkInterfaceTapConfigurations.get(...(await firstInterface()), "t"),
        createOrUpdate: async () => await network.networkInterfaceTapConfigurations.createOrUpdate(...(await firstInterface()), "t", {}),
        delete: async () => await network.networkInterfaceTapConfigurations.delete(...(await firstInterface()), "t"),
      }),
      ...refusals("networkInterfaceLoadBalancers", notRouted, {
        list: async () => await collect(network.networkInterfaceLoadBalancers.list(...(await firstInterface()))),
      }),
      "availablePrivateEndpointTypes.list": works(async () => {
        const types = await collect(network.availablePrivateEndpointTypes.list("local"));
        assert.ok(types.some(({ resourceName }) => resourceName === "Microsoft.RecoveryServices/vaults"));
      }),
      "availablePrivateEndpointTypes.listByResourceGroup": works(async () =>
        assert.equal((await collect(network.availablePrivateEndpointTypes.listByResourceGroup(group, "local"))).length, 3),
      ),
      "usages.list": works(async () => {
        const usage = (await collect(network.usages.list("local"))).find(({ name }) => name?.value === "PrivateEndpoints");
        assert.ok((usage?.currentValue ?? 0) > 0);
      }),
      "serviceTags.list": refused(unsupported, notRouted, async () => await network.serviceTags.list("local")),
      ...refusals("privateLinkServices", own, {
        list: async () => await collect(network.privateLinkServices.list(group)),
        listBySubscription: async () => await collect(network.privateLinkServices.listBySubscription()),
        get: async () => await network.privateLinkServices.get(group, "s"),
        createOrUpdate: async () => await network.privateLinkServices.createOrUpdate(group, "s", {}),
        delete: async () => await network.privateLinkServices.delete(group, "s"),
        listPrivateEndpointConnections: async () => await collect(network.privateLinkServices.listPrivateEndpointConnections(group, "s")),
        getPrivateEndpointConnection: async () => await network.privateLinkServices.getPrivateEndpointConnection(group, "s", "c"),
        updatePrivateEndpointConnection: async () => await network.privateLinkServices.updatePrivateEndpointConnection(group, "s", "c", {}),
        deletePrivateEndpointConnection: async () => await network.privateLinkServices.deletePrivateEndpointConnection(group, "s", "c"),
        listAutoApprovedPrivateLinkServices: async () =>
          await collect(network.privateLinkServices.listAutoApprovedPrivateLinkServices("l")),
        listAutoApprovedPrivateLinkServicesByResourceGroup: async () =>
          await collect(network.privateLinkServices.listAutoApprovedPrivateLinkServicesByResourceGroup("l", group)),
        checkPrivateLinkServiceVisibility: async () => await network.privateLinkServices.checkPrivateLinkServiceVisibility("l", {}),
        checkPrivateLinkServiceVisibilityByResourceGroup: async () =>
          await network.privateLinkServices.checkPrivateLinkServiceVisibilityByResourceGroup("l", group, {}),
      }),
      "privateEndpoints.delete": works(async () => {
        await network.privateEndpoints.delete(group, "manual");
        assert.ok(!names(await collect(network.networkInterfaces.list(group))).includes("manual-nic"));
      }),
    },
  );
});

function refusals(
  name: string,
  why: string,
  calls: Readonly<Record<string, () => Promise<unknown>>>,
): Record<string, ReturnType<typeof refused>> {
  return Object.fromEntries(Object.entries(calls).map(([operation, call]) => [`${name}.${operation}`, refused(unsupported, why, call)]));
}

const projectPath = (): string =>
  `/subscriptions/${rig.subscriptionId}/resourceGroups/${group}/providers/Microsoft.Migrate/migrateProjects/proj`;
const migrationZone = (): string => `privatelink.prod.migration.${domainOf()}`;
/** Of the hub: its vaults' zone tells it. */
function domainOf(): string {
  return zoneNames.find((name) => name.startsWith("privatelink.siterecovery."))?.replace("privatelink.siterecovery.", "") ?? "none";
}
let zoneNames: readonly string[] = [];

function manual(customNetworkInterfaceName: string): Parameters<typeof network.privateEndpoints.createOrUpdate>[2] {
  return {
    location: "local",
    subnet: { id: net.subnets?.[0]?.id ?? "" },
    customNetworkInterfaceName,
    manualPrivateLinkServiceConnections: [
      { name: "project", groupIds: ["Default"], privateLinkServiceId: projectPath(), requestMessage: "please" },
    ],
  };
}

async function migrate(
  method: string,
  below: string,
  body?: object,
  version = "2020-05-01",
): Promise<{ status: number; body: Record<string, unknown> }> {
  const headers = { authorization: `Bearer ${await rig.token()}`, "content-type": "application/json" };
  const url = `${rig.endpoint}${projectPath()}${below}?api-version=${version}`;
  const answer = await fetch(url, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const text = await answer.text();
  return { status: answer.status, body: text === "" ? {} : z.record(z.string(), z.unknown()).parse(JSON.parse(text)) };
}

describe("private DNS", () => {
  const zone = "records.test";
  const sets: Readonly<Record<Exclude<RecordType, "SOA">, RecordSet>> = {
    A: { ttl: 60, aRecords: [{ ipv4Address: "192.0.2.1" }] },
    AAAA: { ttl: 60, aaaaRecords: [{ ipv6Address: "2001:db8::1" }] },
    CNAME: { ttl: 60, cnameRecord: { cname: "target.test" } },
    MX: { ttl: 60, mxRecords: [{ preference: 10, exchange: "mail.test" }] },
    PTR: { ttl: 60, ptrRecords: [{ ptrdname: "host.test" }] },
    SRV: { ttl: 60, srvRecords: [{ priority: 1, weight: 2, port: 53, target: "host.test" }] },
    TXT: { ttl: 60, txtRecords: [{ value: ["text"] }] },
  };
  const kinds = ["A", "AAAA", "CNAME", "MX", "PTR", "SRV", "TXT"] as const;
  checkTable(
    {
      privateZones: () => dns.privateZones,
      recordSets: () => dns.recordSets,
      virtualNetworkLinks: () => dns.virtualNetworkLinks,
    },
    {
      "privateZones.createOrUpdate": works(async () =>
        assert.equal((await dns.privateZones.createOrUpdate(group, zone, { location: "global" })).numberOfRecordSets, 1),
      ),
      "privateZones.get": works(async () => assert.equal((await dns.privateZones.get(group, zone)).name, zone)),
      "privateZones.list": works(async () => assert.ok(names(await collect(dns.privateZones.list())).includes(zone))),
      "privateZones.listByResourceGroup": works(async () =>
        assert.ok(names(await collect(dns.privateZones.listByResourceGroup(group))).includes(zone)),
      ),
      "privateZones.update": works(async () =>
        assert.deepEqual((await dns.privateZones.update(group, zone, { tags: { a: "1" } })).tags, { a: "1" }),
      ),
      "recordSets.createOrUpdate": works(async () => {
        for (const kind of kinds) {
          const made = await dns.recordSets.createOrUpdate(group, zone, kind, `r-${kind.toLowerCase()}`, sets[kind]);
          assert.equal(made.ttl, 60, kind);
          assert.equal(made.fqdn, `r-${kind.toLowerCase()}.${zone}.`);
        }
      }),
      "recordSets.get": works(async () => {
        const found = await dns.recordSets.get(group, zone, "SRV", "r-srv");
        assert.deepEqual(found.srvRecords, sets.SRV.srvRecords);
      }),
      "recordSets.list": works(async () => assert.equal((await collect(dns.recordSets.list(group, zone))).length, kinds.length + 1)),
      "recordSets.listByType": works(async () =>
        assert.deepEqual(names(await collect(dns.recordSets.listByType(group, zone, "TXT"))), ["r-txt"]),
      ),
      "recordSets.update": works(async () => assert.equal((await dns.recordSets.update(group, zone, "A", "r-a", { ttl: 30 })).ttl, 30)),
      "recordSets.delete": works(async () => {
        for (const kind of kinds) await dns.recordSets.delete(group, zone, kind, `r-${kind.toLowerCase()}`);
        assert.equal((await collect(dns.recordSets.list(group, zone))).length, 1);
      }),
      "virtualNetworkLinks.createOrUpdate": works(async () => {
        const wanted = { location: "global", virtualNetwork: { id: net.id ?? "" }, registrationEnabled: false };
        const made = await dns.virtualNetworkLinks.createOrUpdate(group, zone, "link", wanted);
        assert.equal(made.virtualNetworkLinkState, "Completed");
      }),
      "virtualNetworkLinks.get": works(async () =>
        assert.equal((await dns.virtualNetworkLinks.get(group, zone, "link")).virtualNetwork?.id, net.id),
      ),
      "virtualNetworkLinks.list": works(async () => assert.equal((await collect(dns.virtualNetworkLinks.list(group, zone))).length, 1)),
      "virtualNetworkLinks.update": works(async () =>
        assert.deepEqual((await dns.virtualNetworkLinks.update(group, zone, "link", { tags: { b: "2" } })).tags, { b: "2" }),
      ),
      "privateZones.delete while linked": refused(
        "Conflict",
        "networks are linked",
        async () => await dns.privateZones.delete(group, zone),
      ),
      "virtualNetworkLinks.delete": works(async () => await dns.virtualNetworkLinks.delete(group, zone, "link")),
      "privateZones.delete": works(async () => {
        await dns.privateZones.delete(group, zone);
        assert.ok(!names(await collect(dns.privateZones.list())).includes(zone));
      }),
    },
  );
});

describe("Microsoft.Migrate", () => {
  it("projects are made, listed, changed, summed up and deleted by the documented calls", async () => {
    const changed = await migrate("PATCH", "", { tags: { a: "1" } }, "2018-09-01-preview");
    assert.deepEqual([changed.status, changed.body["tags"]], [200, { a: "1" }]);
    const summary = z.object({ properties: z.looseObject({ summary: z.object({ Servers: z.looseObject({}) }) }) }).parse(changed.body);
    assert.equal(summary.properties.summary.Servers["instanceType"], "Servers");
    assert.deepEqual((await migrate("POST", "/refreshSummary", { goal: "Servers" })).body, { isRefreshed: true });
    assert.deepEqual((await migrate("POST", "/registerTool", { tool: "ServerMigration" })).body, { isRegistered: true });
    assert.equal((await migrate("POST", "/registerTool", { tool: "Zerto" })).status, 400);
    const links = z.object({ value: z.array(z.looseObject({ name: z.string() })) });
    assert.deepEqual(names(links.parse((await migrate("GET", "/privateLinkResources")).body).value), ["Default"]);
    assert.deepEqual((await migrate("GET", "/privateEndpointConnections")).body["value"], []);
    assert.deepEqual((await migrate("GET", "/machines")).body["value"], []);
    for (const kind of ["solutions", "databases", "databaseInstances"]) assert.equal((await migrate("GET", `/${kind}`)).status, 405, kind);
    assert.equal((await migrate("DELETE", "")).status, 200);
    assert.equal((await migrate("GET", "")).status, 404);
  });
});
