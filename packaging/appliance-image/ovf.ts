// The description of the appliance's image for hypervisors: OVF 1.1 with its properties, and the manifest of the archive's files. Pure.

const mebibyte = 2 ** 20;

export interface ImageDescription {
  readonly version: string;
  readonly diskFile: string;
  readonly diskFileBytes: number;
  readonly capacityBytes: number;
  /** What the disk's filesystems hold now. */
  readonly populatedBytes: number;
}

/** Whoever deploys the image is asked for these; all may stay empty. src/appliance/config/answers.ts reads them. */
export const imageProperties = [
  ["name", "Name", "Name of the appliance: letters, digits and hyphens."],
  ["address", "Address", "Address with its prefix, for example 10.10.0.10/24. DHCP when it is empty."],
  ["gateway", "Gateway", "Address of the router."],
  ["dns", "Resolvers", "Addresses of DNS servers, separated by commas."],
  ["proxy", "Proxy", "Forward proxy for public names, for example http://10.10.0.1:3128. Its password is asked for in set-up."],
  ["ntp", "Time servers", "Names or addresses of time servers, separated by commas."],
] as const;

const hardware = { cpuCount: 4, memoryMiB: 8192, system: "vmx-13" } as const;

/** OVF 1.1 (DSP0243), as vSphere writes it: every version of vCenter reads that. */
export function renderOvf(image: ImageDescription): string {
  const { version, diskFile, diskFileBytes, capacityBytes, populatedBytes } = image;
  const properties = imageProperties.map(
    ([key, label, description]) => `      <Property ovf:key="${key}" ovf:type="string" ovf:userConfigurable="true" ovf:value="">
        <Label>${escapeXml(label)}</Label>
        <Description>${escapeXml(description)}</Description>
      </Property>`,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href="${escapeXml(diskFile)}" ovf:id="file1" ovf:size="${diskFileBytes}"/>
  </References>
  <DiskSection>
    <Info>The appliance's disk</Info>
    <Disk ovf:capacity="${Math.ceil(capacityBytes / mebibyte)}" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ovf:populatedSize="${populatedBytes}"/>
  </DiskSection>
  <NetworkSection>
    <Info>The network of the site's machines</Info>
    <Network ovf:name="Site">
      <Description>Reaches vCenter, the machines, the proxy and the private line</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="watari-appliance">
    <Info>Replication appliance of Watari</Info>
    <Name>watari-appliance</Name>
    <OperatingSystemSection ovf:id="96" vmw:osType="debian11_64Guest">
      <Info>The guest's operating system</Info>
      <Description>Debian GNU/Linux 12 (64-bit)</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection ovf:transport="com.vmware.guestInfo iso">
      <Info>The machine's hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>watari-appliance</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>${hardware.system}</vssd:VirtualSystemType>
      </System>
${renderItem({ id: 1, type: 3, name: `${hardware.cpuCount} virtual CPUs`, more: { AllocationUnits: "hertz * 10^6", VirtualQuantity: String(hardware.cpuCount) } })}
${renderItem({ id: 2, type: 4, name: `${hardware.memoryMiB} MB of memory`, more: { AllocationUnits: "byte * 2^20", VirtualQuantity: String(hardware.memoryMiB) } })}
${renderItem({ id: 3, type: 6, name: "SCSI controller 0", more: { Address: "0", ResourceSubType: "VirtualSCSI" } })}
${renderItem({ id: 4, type: 17, name: "Hard disk 1", more: { AddressOnParent: "0", HostResource: "ovf:/disk/vmdisk1", Parent: "3" } })}
${renderItem({ id: 5, type: 10, name: "Network adapter 1", more: { AddressOnParent: "7", AutomaticAllocation: "true", Connection: "Site", ResourceSubType: "VmxNet3" } })}
    </VirtualHardwareSection>
    <ProductSection>
      <Info>What the appliance is told</Info>
      <Product>Watari replication appliance</Product>
      <Version>${escapeXml(version)}</Version>
      <Category>Network</Category>
${properties.join("\n")}
    </ProductSection>
  </VirtualSystem>
</Envelope>
`;
}

interface Item {
  readonly id: number;
  /** CIM resource type. */
  readonly type: number;
  readonly name: string;
  readonly more: Readonly<Record<string, string>>;
}

/** The members of an item are in the order of their names, which the schema demands. */
function renderItem({ id, type, name, more }: Item): string {
  const members = { ...more, ElementName: name, InstanceID: String(id), ResourceType: String(type) };
  const lines = Object.entries(members)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([member, value]) => `        <rasd:${member}>${escapeXml(value)}</rasd:${member}>`);
  return ["      <Item>", ...lines, "      </Item>"].join("\n");
}

/** "SHA256(name)= hex" for each file, in the archive's order. */
export function renderManifest(files: readonly { readonly name: string; readonly sha256: string }[]): string {
  return files.map(({ name, sha256 }) => `SHA256(${name})= ${sha256}\n`).join("");
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
