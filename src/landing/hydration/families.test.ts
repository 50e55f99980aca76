// Whole trees of other families, with the layouts that their packages document: every change that hydration tells, and the files after it.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { systemClock as clock } from "../../base/clock.ts";
import { runCommand } from "../../base/run-command.ts";
import type { NicAddressing } from "../target.ts";
import { cpioTypes, writeCpio } from "./cpio.ts";
import { ExtFiles } from "./ext-files.ts";
import { hydrate } from "./hydrate.ts";

const skip = spawnSync("sh", ["-c", "command -v mke2fs debugfs"]).status === 0 ? false : "e2fsprogs is not installed";
const base = mkdtempSync(join(tmpdir(), "families-"));
after(() => rmSync(base, { recursive: true }));

const uuid = "11111111-2222-4333-8444-555555555555";
const mac = "00:50:56:AA:BB:01";

interface Family {
  readonly name: string;
  readonly release: string;
  readonly initrdName: string;
  readonly initrd: (main: Buffer) => Buffer;
  readonly addressing?: NicAddressing;
  readonly files: Readonly<Record<string, string>>;
  readonly changes: readonly string[];
  readonly after: Readonly<Record<string, string>>;
}

const link = (name: string): string => `[Match]\nMACAddress=${mac.toLowerCase()}\nDriver=virtio_net\n\n[Link]\nName=${name}\n`;

const families: readonly Family[] = [
  {
    name: "Red Hat 9: boot entries, LVM's list of devices, NetworkManager's key file, SELinux",
    release: "5.14.0-427.el9.x86_64",
    initrdName: "initramfs-5.14.0-427.el9.x86_64.img",
    // dracut puts an early archive with microcode before the main one.
    initrd: (main) => Buffer.concat([writeCpio([{ name: "early_cpio", mode: cpioTypes.file, content: Buffer.from("1") }]), gzipSync(main)]),
    files: {
      "etc/fstab": "# /etc/fstab\n/dev/sda /\text4\tdefaults 0 0\n/dev/mapper/rhel-swap none swap defaults 0 0\n",
      "etc/selinux/config": "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
      "etc/lvm/devices/system.devices": "VERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.6000c29 DEVNAME=/dev/sda2 PVID=x PART=2\n",
      "etc/NetworkManager/system-connections/ens192.nmconnection":
        "[connection]\nid=ens192\ntype=ethernet\ninterface-name=ens192\n\n[match]\ndriver=vmxnet3\n\n[ipv4]\nmethod=manual\naddress1=10.0.0.5/24\n",
      "etc/kernel/cmdline": "root=/dev/sda ro crashkernel=1G-4G:192M\n",
      "etc/default/grub": 'GRUB_CMDLINE_LINUX="crashkernel=1G-4G:192M"\nGRUB_ENABLE_BLSCFG=true\n',
      "boot/loader/entries/abc-5.14.0-427.el9.x86_64.conf":
        "title Red Hat Enterprise Linux\nversion 5.14.0\nlinux /boot/vmlinuz-5.14.0\noptions root=/dev/sda ro $tuned_params\n",
      "boot/grub2/grubenv": "# GRUB Environment Block\nsaved_entry=abc-5.14.0\n".padEnd(1024, "#"),
      "usr/lib/systemd/system/vmtoolsd.service": "[Service]\n",
      "etc/systemd/system/keep": "",
    },
    changes: [
      "/boot/initramfs-5.14.0-427.el9.x86_64.img: + virtio_pci virtio_blk",
      `/etc/fstab: /dev/sda → UUID=${uuid}`,
      `/boot/loader/entries/abc-5.14.0-427.el9.x86_64.conf: root=/dev/sda → root=UUID=${uuid}`,
      `/etc/kernel/cmdline: root=/dev/sda → root=UUID=${uuid}`,
      "/etc/NetworkManager/system-connections/ens192.nmconnection: driver vmxnet3 → virtio_net",
      "/etc/systemd/network/10-watari-ens192.link: the card 00:50:56:aa:bb:01 keeps the name ens192",
      "/etc/lvm/devices/system.devices: put aside; it names the old disks",
      "/etc/systemd/system/vmtoolsd.service: masked; it serves the old hypervisor",
      "/.autorelabel: SELinux labels the files anew at the first start",
    ],
    after: {
      "/etc/fstab": `# /etc/fstab\nUUID=${uuid} /\text4\tdefaults 0 0\n/dev/mapper/rhel-swap none swap defaults 0 0\n`,
      "/.autorelabel": "",
      "/etc/lvm/devices/system.devices.watari-orig": "VERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.6000c29 DEVNAME=/dev/sda2 PVID=x PART=2\n",
      "/boot/loader/entries/abc-5.14.0-427.el9.x86_64.conf": `title Red Hat Enterprise Linux\nversion 5.14.0\nlinux /boot/vmlinuz-5.14.0\noptions root=UUID=${uuid} ro $tuned_params\n`,
      "/etc/systemd/network/10-watari-ens192.link": link("ens192"),
    },
  },
  {
    name: "SUSE 15: by-path names, wicked, another fixed address, a rule that names the card",
    release: "5.14.21-150500.55-default",
    initrdName: "initrd-5.14.21-150500.55-default",
    initrd: (main) => zstdCompressSync(main),
    addressing: { kind: "fixed", address: "10.9.0.7/24", gateway: "10.9.0.1", nameServers: ["10.9.0.2"] },
    files: {
      "etc/fstab":
        "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0  /  ext4  acl,user_xattr  1  1\ndebugfs /sys/kernel/debug debugfs noauto 0 0\n",
      "etc/sysconfig/network/ifcfg-eth0": "BOOTPROTO='static'\nIPADDR='10.0.0.5/24'\nSTARTMODE='auto'\n",
      "etc/sysconfig/network/ifcfg-lo": "IPADDR=127.0.0.1\n",
      "etc/sysconfig/network/routes": "default 10.0.0.1 - -\n",
      "etc/udev/rules.d/70-persistent-net.rules":
        'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="vmxnet3", ATTR{address}=="00:50:56:aa:bb:01", ATTR{type}=="1", KERNEL=="eth*", NAME="eth0"\n',
      "etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="splash=silent resume=/dev/sda quiet"\nGRUB_CMDLINE_LINUX=""\n',
      "boot/grub2/grub.cfg":
        "\tlinux\t/boot/vmlinuz-5.14.21 root=/dev/sda  splash=silent resume=/dev/sda quiet\n\tinitrd\t/boot/initrd-5.14.21\n",
      "etc/systemd/system/keep": "",
    },
    changes: [
      "/boot/initrd-5.14.21-150500.55-default: + virtio_pci virtio_blk",
      `/etc/fstab: /dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0 → UUID=${uuid}`,
      `/boot/grub2/grub.cfg: root=/dev/sda → root=UUID=${uuid}`,
      `/boot/grub2/grub.cfg: resume=/dev/sda → resume=UUID=${uuid}`,
      `/etc/default/grub: resume=/dev/sda → resume=UUID=${uuid}`,
      "/etc/udev/rules.d/70-persistent-net.rules: a card's rule asks no longer for slot and driver",
      "/etc/systemd/network/10-watari-eth0.link: the card 00:50:56:aa:bb:01 keeps the name eth0",
      "/etc/sysconfig/network/ifcfg-eth0: the card eth0 gets the address 10.9.0.7/24",
      "/etc/sysconfig/network/ifroute-eth0: the card eth0 gets the address 10.9.0.7/24",
      "! /etc/sysconfig/network/routes: its default route stays",
      "! /etc/sysconfig/network/config: its name servers stay",
    ],
    after: {
      "/etc/sysconfig/network/ifcfg-eth0": "STARTMODE='auto'\nBOOTPROTO='static'\nIPADDR='10.9.0.7/24'\n",
      "/etc/sysconfig/network/ifroute-eth0": "default 10.9.0.1 - eth0\n",
      "/etc/default/grub": `GRUB_CMDLINE_LINUX_DEFAULT="splash=silent resume=UUID=${uuid} quiet"\nGRUB_CMDLINE_LINUX=""\n`,
      "/etc/systemd/network/10-watari-eth0.link": link("eth0"),
    },
  },
  {
    name: "Ubuntu 22: netplan that matches the driver, cloud-init's file, an address by DHCP",
    release: "5.15.0-105-generic",
    initrdName: "initrd.img-5.15.0-105-generic",
    initrd: (main) => zstdCompressSync(main),
    addressing: { kind: "dhcp" },
    files: {
      "etc/fstab": "/dev/disk/by-uuid/11111111-2222-4333-8444-555555555555 / ext4 defaults 0 1\n/swap.img\tnone\tswap\tsw\t0\t0\n",
      "etc/netplan/00-installer-config.yaml":
        "# by the installer\nnetwork:\n  version: 2\n  ethernets:\n    lan:\n      match:\n        driver: vmxnet3\n      addresses: [10.0.0.5/24]\n",
      "boot/grub/grub.cfg": "\tlinux\t/boot/vmlinuz-5.15.0-105-generic root=/dev/sda ro  quiet splash $vt_handoff\n",
      "usr/lib/systemd/system/open-vm-tools.service": "[Service]\n",
      "etc/systemd/system/keep": "",
    },
    changes: [
      "/boot/initrd.img-5.15.0-105-generic: + virtio_pci virtio_blk",
      `/boot/grub/grub.cfg: root=/dev/sda → root=UUID=${uuid}`,
      "/etc/netplan/00-installer-config.yaml: driver vmxnet3 → virtio_net",
      "/etc/systemd/network/10-watari-ens160.link: the card 00:50:56:aa:bb:01 keeps the name ens160",
      "/etc/systemd/network/05-watari-ens160.network: the card ens160 gets its address by DHCP",
      "/etc/systemd/system/open-vm-tools.service: masked; it serves the old hypervisor",
    ],
    after: {
      "/etc/systemd/network/05-watari-ens160.network": "[Match]\nName=ens160\n\n[Network]\nDHCP=yes\n",
      "/etc/systemd/network/10-watari-ens160.link": link("ens160"),
    },
  },
];

async function makeGuest({ release, initrdName, initrd, files }: Family): Promise<{ image: string; scratchFolder: string }> {
  const folder = mkdtempSync(join(base, "guest-"));
  const [tree, image, scratchFolder] = [join(folder, "tree"), join(folder, "disk.raw"), join(folder, "scratch")];
  const modules = `lib/modules/${release}`;
  const kernel: Readonly<Record<string, string | Buffer>> = {
    [`boot/${initrdName}`]: initrd(
      writeCpio([{ name: `${modules}/kernel/virtio.ko.xz`, mode: cpioTypes.file, content: Buffer.from("v") }]),
    ),
    [`${modules}/modules.dep`]:
      "kernel/virtio.ko.xz:\nkernel/virtio_pci.ko.xz: kernel/virtio.ko.xz\nkernel/virtio_blk.ko.xz: kernel/virtio.ko.xz\n",
    [`${modules}/modules.builtin`]: "",
    [`${modules}/kernel/virtio_pci.ko.xz`]: "pci",
    [`${modules}/kernel/virtio_blk.ko.xz`]: "blk",
  };
  for (const [path, content] of Object.entries({ ...files, ...kernel })) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), content);
  }
  mkdirSync(scratchFolder);
  writeFileSync(image, "");
  truncateSync(image, 8 * 2 ** 20);
  await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", "-m", "0", "-b", "1024", "-U", uuid, "-d", tree, image]);
  return { image, scratchFolder };
}

describe("hydrate, by family", { skip }, () => {
  for (const family of families)
    it(family.name, async () => {
      const { image, scratchFolder } = await makeGuest(family);
      const guestName = Object.keys(family.after)
        .find((path) => path.endsWith(".link"))
        ?.replace(/^.*10-watari-(.*)\.link$/, "$1");
      const run = async () =>
        await hydrate({
          imagePaths: [image],
          bootDiskIndex: 0,
          nics: [{ mac, guestName: guestName ?? "", ...(family.addressing === undefined ? {} : { addressing: family.addressing }) }],
          hardware: { drivers: { required: ["virtio_pci", "virtio_blk"], wished: [] }, cardDriver: "virtio_net" },
          scratchFolder,
          clock,
        });
      assert.deepEqual((await run()).changes, family.changes);
      await runCommand("e2fsck", ["-fn", image]);
      const found = await new ExtFiles({ imagePath: image, offset: 0, scratchFolder }).read(Object.keys(family.after));
      for (const [path, text] of Object.entries(family.after)) assert.equal(found.get(path)?.toString("utf8"), text, path);
      assert.deepEqual(
        (await run()).changes.filter((line) => !line.startsWith("!")),
        [],
        "the second time changes nothing",
      );
    });
});
