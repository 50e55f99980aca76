// What networks, private endpoints, DNS zones and network interfaces answer.

import { z } from "zod";
import {
  connectionState,
  dnsSettings,
  none,
  part,
  place,
  reference,
  row,
  seen,
  text,
  texts,
  usage,
  whole,
  words,
  yesOrNo,
  type AnswerTable,
} from "./answer-parts.ts";

const network = "Microsoft.Network";
const zones = `${network}/privateDnsZones`;

const subnet = seen(
  z.strictObject({
    addressPrefix: text,
    addressPrefixes: texts.optional(),
    privateEndpointNetworkPolicies: text,
    privateLinkServiceNetworkPolicies: text,
    delegations: none,
    privateEndpoints: z.array(reference).optional(),
    provisioningState: text,
  }),
  { etag: text },
);

const endpointConnections = z.array(
  z.strictObject({
    id: text,
    name: text,
    properties: z.strictObject({
      privateLinkServiceId: text,
      groupIds: texts,
      requestMessage: text.nullish(),
      provisioningState: text,
      privateLinkServiceConnectionState: connectionState,
    }),
  }),
);

const addressOfInterface = z.strictObject({
  id: text,
  name: text,
  properties: z.strictObject({
    privateIPAddress: text.optional(),
    privateIPAllocationMethod: z.enum(["Dynamic", "Static"]),
    privateIPAddressVersion: z.enum(["IPv4", "IPv6"]),
    primary: yesOrNo,
    provisioningState: text.optional(),
    subnet: reference.optional(),
    privateLinkConnectionProperties: z.strictObject({ groupId: text, requiredMemberName: text, fqdns: texts }).optional(),
  }),
});

/** Of a private endpoint, or of a landed machine. */
const networkInterface = part(
  z.strictObject({
    macAddress: text.optional(),
    primary: yesOrNo.optional(),
    nicType: text.optional(),
    enableIPForwarding: yesOrNo.optional(),
    enableAcceleratedNetworking: yesOrNo.optional(),
    virtualMachine: reference.optional(),
    privateEndpoint: reference.optional(),
    ipConfigurations: z.array(addressOfInterface),
    watariVirtualNetworkId: text.optional(),
    provisioningState: text,
  }),
  { etag: text.optional() },
);

const recordMembers = {
  A: { aRecords: z.array(z.strictObject({ ipv4Address: text })) },
  AAAA: { aaaaRecords: z.array(z.strictObject({ ipv6Address: text })) },
  CNAME: { cnameRecord: z.strictObject({ cname: text }) },
  MX: { mxRecords: z.array(z.strictObject({ preference: whole, exchange: text })) },
  PTR: { ptrRecords: z.array(z.strictObject({ ptrdname: text })) },
  SOA: {
    soaRecord: z.strictObject({
      host: text.optional(),
      email: text.optional(),
      serialNumber: whole.optional(),
      refreshTime: whole.optional(),
      retryTime: whole.optional(),
      expireTime: whole.optional(),
      minimumTtl: whole.optional(),
    }),
  },
  SRV: { srvRecords: z.array(z.strictObject({ priority: whole, weight: whole, port: whole, target: text })) },
  TXT: { txtRecords: z.array(z.strictObject({ value: texts })) },
};
const record = z.strictObject({ ttl: whole.optional(), metadata: words.optional(), fqdn: text, isAutoRegistered: z.literal(false) });
const anyRecord = z.strictObject(Object.assign({}, ...Object.values(recordMembers)) as z.core.$ZodLooseShape).partial();

export const networkAnswers: AnswerTable = {
  [`${network}/virtualNetworks`]: {
    resource: row(
      z.strictObject({
        addressSpace: z.strictObject({ addressPrefixes: texts }),
        subnets: z.array(subnet),
        virtualNetworkPeerings: none,
        enableDdosProtection: z.literal(false),
        resourceGuid: text,
      }),
    ),
    actions: {
      checkIPAddressAvailability: z.strictObject({
        available: yesOrNo,
        availableIPAddresses: texts.optional(),
        isPlatformReserved: yesOrNo,
      }),
      usages: z.strictObject({ value: z.array(usage) }),
    },
  },
  [`${network}/virtualNetworks/subnets`]: { resource: subnet },
  [`${network}/privateEndpoints`]: {
    resource: row(
      z.strictObject({
        subnet: reference,
        networkInterfaces: z.array(reference),
        customDnsConfigs: z.array(z.strictObject({ fqdn: text, ipAddresses: texts })),
        privateLinkServiceConnections: endpointConnections,
        manualPrivateLinkServiceConnections: endpointConnections,
        customNetworkInterfaceName: text.optional(),
      }),
    ),
    actions: { dnsSettings },
  },
  [`${network}/privateEndpoints/privateDnsZoneGroups`]: {
    resource: row(
      z.strictObject({
        privateDnsZoneConfigs: z.array(
          z.strictObject({
            name: text,
            properties: z.strictObject({
              privateDnsZoneId: text,
              recordSets: z.array(
                z.strictObject({
                  recordType: text,
                  recordSetName: text,
                  fqdn: text,
                  ttl: whole,
                  ipAddresses: texts,
                  provisioningState: text,
                }),
              ),
            }),
          }),
        ),
      }),
    ),
  },
  [zones]: {
    resource: row(
      z.strictObject({
        maxNumberOfRecordSets: whole,
        numberOfRecordSets: whole,
        maxNumberOfVirtualNetworkLinks: whole,
        numberOfVirtualNetworkLinks: whole,
        maxNumberOfVirtualNetworkLinksWithRegistration: whole,
        numberOfVirtualNetworkLinksWithRegistration: whole,
      }),
    ),
  },
  [`${zones}/virtualNetworkLinks`]: {
    resource: row(
      z.strictObject({
        virtualNetwork: reference,
        registrationEnabled: z.literal(false),
        resolutionPolicy: z.literal("Default"),
        virtualNetworkLinkState: text,
      }),
    ),
  },
  ...Object.fromEntries(
    Object.entries(recordMembers).map(([kind, members]) => [`${zones}/${kind}`, { resource: row(record.extend(members)) }]),
  ),
  [`${zones}/ALL`]: { resource: row(record.extend(anyRecord.shape)) },
  [`${network}/networkInterfaces`]: { resource: networkInterface },
  [`${network}/networkInterfaces/ipConfigurations`]: { resource: addressOfInterface.extend({ type: text }) },
  [`${network}/locations`]: { resource: place },
  [`${network}/locations/usages`]: { resource: usage },
  [`${network}/locations/availablePrivateEndpointTypes`]: {
    resource: z.strictObject({ id: text, name: text, type: text, resourceName: text, displayName: text }),
  },
};
