// The machine as a VirtualMachine of KubeVirt (kubevirt.io/v1), with the commands that upload its disks in front.

import { stringify } from "yaml";
import { bootFirst, toMebibytes, type DefinedMachine } from "./defined-machine.ts";

export function renderKubeVirt(machine: DefinedMachine): string {
  const { name, cpuCount, memoryBytes, firmware, nics } = machine;
  const disks = bootFirst(machine.disks);
  const uploads = disks.map(
    ({ fileName, sizeBytes }, index) =>
      `# virtctl image-upload dv ${name}-disk${index} --size=${toMebibytes(sizeBytes)}Mi --image-path=${fileName}`,
  );
  const others = nics
    .slice(1)
    .map((_, index) => `# A NetworkAttachmentDefinition ${name}-net${index + 1} is needed for card ${index + 2}.`);
  const manifest = {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    metadata: { name },
    spec: {
      runStrategy: "Halted",
      template: {
        metadata: { labels: { "kubevirt.io/domain": name } },
        spec: {
          domain: {
            machine: { type: "q35" },
            cpu: { cores: cpuCount },
            memory: { guest: `${toMebibytes(memoryBytes)}Mi` },
            // KubeVirt asks for SMM with secure boot only.
            firmware: { bootloader: firmware === "efi" ? { efi: { secureBoot: false } } : { bios: {} } },
            devices: {
              autoattachSerialConsole: true,
              rng: {},
              disks: disks.map((_, index) => ({ name: `disk${index}`, bootOrder: index + 1, disk: { bus: "virtio" } })),
              interfaces: nics.map(({ mac }, index) => ({
                name: `nic${index}`,
                model: "virtio",
                macAddress: mac.toLowerCase(),
                ...(index === 0 ? { masquerade: {} } : { bridge: {} }),
              })),
            },
          },
          networks: nics.map((_, index) => ({
            name: `nic${index}`,
            ...(index === 0 ? { pod: {} } : { multus: { networkName: `${name}-net${index}` } }),
          })),
          volumes: disks.map((_, index) => ({ name: `disk${index}`, dataVolume: { name: `${name}-disk${index}` } })),
        },
      },
    },
  };
  const head = ["# Upload the disks first, then: kubectl apply -f virtual-machine.yaml; virtctl start " + name, ...uploads, ...others];
  return `${head.join("\n")}\n${stringify(manifest)}`;
}
