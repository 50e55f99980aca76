// Definitions against golden files, and against the platforms' own schemas where this host has them.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse } from "yaml";
import { z } from "zod";
import { tryCommand } from "../../base/run-command.ts";
import { definitionFileOf, formatFor, platforms, renderDefinition, type Platform } from "./definition.ts";
import type { DefinedMachine, LandedDefinition } from "./defined-machine.ts";
import { renderLandedLibvirt } from "./libvirt.ts";

const gibibyte = 2 ** 30;
const plain: Omit<DefinedMachine, "format"> = {
  ...{ name: "web", cpuCount: 2, memoryBytes: 2 * gibibyte, firmware: "bios" },
  disks: [{ fileName: "disk0.img", sizeBytes: 10 * gibibyte, isBoot: true }],
  nics: [{ mac: "00:50:56:0a:0b:0c", guestName: "ens192" }],
};
const rich: Omit<DefinedMachine, "format"> = {
  ...{ name: "db-1", cpuCount: 8, memoryBytes: 48 * gibibyte, firmware: "efi" },
  disks: [
    { fileName: "disk0.img", sizeBytes: 200 * gibibyte, isBoot: false },
    { fileName: "disk1.img", sizeBytes: 40 * gibibyte + 512, isBoot: true },
  ],
  nics: [
    { mac: "00:50:56:0a:0b:0c", guestName: "ens192" },
    { mac: "00:50:56:0A:0B:0D", guestName: "ens224" },
  ],
};
const landedDisk = { path: '/srv/a & "b"/<c>/disk-0.qcow2', isBoot: false, serial: "6000c29" };
const landed: readonly LandedDefinition[] = [
  {
    ...{ name: "web", cpuCount: 2, memoryBytes: 2 * gibibyte },
    disks: [landedDisk, { path: "/srv/disk-1.qcow2", isBoot: true, serial: "6000c30" }],
    nics: [
      { mac: "00:50:56:0A:0b:0c", guestName: "ens192", wire: { kind: "bridge", bridge: "br0" } },
      { mac: "00:50:56:0a:0b:0d", guestName: "a--b", wire: { kind: "none" } },
    ],
  },
  {
    ...{ name: "db-1", cpuCount: 8, memoryBytes: 48 * gibibyte },
    efi: { codePath: "/usr/share/OVMF/OVMF_CODE_4M.fd", variablesPath: "/srv/efi-variables.fd" },
    disks: [landedDisk],
    nics: [{ mac: "00:50:56:0a:0b:0c", guestName: "ens192", wire: { kind: "user" } }],
  },
];
const golden = join(import.meta.dirname, "golden");
const isRenewed = process.env["WATARI_GOLDEN"] === "renew";
const schema = ["/usr/share/libvirt/schemas/domain.rng"].find(existsSync);

const named = z.array(z.looseObject({ name: z.string() }));
const domainShape = z.looseObject({
  firmware: z.looseObject({ bootloader: z.unknown() }),
  devices: z.looseObject({ interfaces: named, disks: named }),
});
const specShape = z.looseObject({ domain: domainShape, networks: named, volumes: named });
const manifestShape = z.looseObject({ spec: z.looseObject({ template: z.looseObject({ spec: specShape }) }) });

function rendered(platform: Platform, machine: Omit<DefinedMachine, "format">): string {
  const format = formatFor(platform, undefined);
  const disks = machine.disks.map((disk) => ({ ...disk, fileName: disk.fileName.replace("img", format) }));
  return renderDefinition(platform, { ...machine, format, disks });
}

describe("a machine's definition", () => {
  for (const platform of platforms)
    for (const machine of [plain, rich])
      it(`for ${platform} of ${machine.name} is the golden one`, async () => {
        const path = join(golden, `${machine.name}-${definitionFileOf(platform)}`);
        const text = rendered(platform, machine);
        if (isRenewed) await writeFile(path, text);
        assert.equal(text, await readFile(path, "utf8"));
      });

  it("of a landed machine names its disks where they lie, in their order, and boots from its boot disk", () => {
    const [first = "", second = ""] = landed.map(renderLandedLibvirt);
    const [data = "", boot = ""] = first.split("<disk ").slice(1);
    assert.ok(data.includes('file="/srv/a &amp; &quot;b&quot;/&lt;c&gt;/disk-0.qcow2"') && !data.includes("<boot "));
    assert.match(boot, /disk-1\.qcow2"[\s\S]*<serial>6000c30<\/serial>\n {6}<boot order="1"\/>/);
    assert.match(first, /<source bridge="br0"\/>[\s\S]*<link state="down"\/>/);
    assert.match(second, /<nvram>\/srv\/efi-variables\.fd<\/nvram>/);
  });

  it("for shells is one that a shell can read", async () => {
    for (const platform of ["proxmox", "openstack"] as const)
      for (const machine of [plain, rich]) {
        const { exitCode, stderr } = await tryCommand("sh", ["-n"], { stdin: rendered(platform, machine) });
        assert.deepEqual([exitCode, stderr], [0, ""]);
      }
  });

  it("for KubeVirt is YAML whose cards have networks and whose disks have volumes", () => {
    const { domain, networks, volumes } = manifestShape.parse(parse(rendered("kubevirt", rich))).spec.template.spec;
    const names = (list: readonly { readonly name: string }[]): readonly string[] => list.map(({ name }) => name);
    assert.deepEqual(names(networks), names(domain.devices.interfaces));
    assert.deepEqual(names(volumes), names(domain.devices.disks));
    assert.deepEqual(domain.firmware.bootloader, { efi: { secureBoot: false } });
  });

  it(
    "for libvirt holds against libvirt's own schema",
    { skip: schema === undefined ? "libvirt's schemas are not here" : false },
    async () => {
      const folder = await mkdtemp(join(tmpdir(), "wd-"));
      try {
        for (const text of [rendered("libvirt", plain), rendered("libvirt", rich), ...landed.map(renderLandedLibvirt)]) {
          const path = join(folder, "domain.xml");
          await writeFile(path, text);
          const { exitCode, stderr } = await tryCommand("xmllint", ["--noout", "--relaxng", schema ?? "", path]);
          assert.equal(exitCode, 0, stderr);
        }
      } finally {
        await rm(folder, { recursive: true });
      }
    },
  );

  it("refuses names that a shell or a markup could misread, and formats that the platform does not take", () => {
    for (const name of ["web; rm -rf /", "<x/>", "Web", ""])
      assert.throws(() => renderDefinition("proxmox", { ...plain, name, format: "qcow2" }), { code: "InputInvalid" });
    const nics = [{ mac: "00:50:56:0a:0b:0c", guestName: "'; Remove-Item *" }];
    assert.throws(() => renderDefinition("hyper-v", { ...plain, nics, format: "vhd" }), { code: "InputInvalid" });
    assert.throws(() => formatFor("hyper-v", "qcow2"), { code: "InputInvalid" });
  });
});
