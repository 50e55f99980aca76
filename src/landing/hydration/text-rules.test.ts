// What the table of text rules makes of each family's files, with the layouts that their packages document, and of odd forms of them.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { rewriteInterfaces } from "./addressing.ts";
import { findVolume } from "./survey.ts";
import { textRules, type RuleSurroundings } from "./text-rules.ts";
import type { Volume } from "./volumes.ts";

const partition = (diskIndex: number, number: number, kind: "ext" | "xfs" | "luks", uuid: string): Volume => ({
  title: `disk ${diskIndex} partition ${number}`,
  place: { kind: "partition", diskIndex, partition: { number, offset: 2 ** 20 * number, sizeBytes: 2 ** 20 } },
  filesystem: kind === "ext" ? { kind, uuid, label: "", freeBytes: 0, needsRecovery: false } : { kind, uuid, label: "" },
});
const volumes: readonly Volume[] = [
  partition(0, 1, "ext", "boot-uuid"),
  partition(0, 2, "xfs", "root-uuid"),
  partition(0, 5, "luks", "luks-uuid"),
  partition(1, 1, "ext", "data-uuid"),
];
const around: RuleSurroundings = {
  findUuid: (source, type) => {
    const volume = findVolume(volumes, { source, type });
    return volume !== undefined && "uuid" in volume.filesystem ? volume.filesystem.uuid : undefined;
  },
  cardDriver: "virtio_net",
  macs: ["00:50:56:aa:bb:01"],
  hasSerialConsole: false,
};

interface Golden {
  readonly family: string;
  readonly path: string;
  readonly before: string;
  readonly after: string;
  readonly hasSerialConsole?: boolean;
}

const environment = (text: string): string => text.padEnd(1024, "#");

/** Path: as the rule's folder and a name. Equal texts: nothing may change. */
const goldens: readonly Golden[] = [
  {
    family: "Debian: tabs, comments, bind mounts, swap files and network mounts stay",
    path: "/etc/fstab",
    before:
      "# /dev/sda2 was on / during installation\n/dev/sda2\t/\txfs\tdefaults\t0\t1\n  /dev/sda1 /boot  ext4 ro,noatime 0 2 # slow\n/srv/a /srv/b none bind 0 0\n/swapfile none swap sw 0 0\n//nas/x /mnt cifs ro 0 0\nUUID=x /y ext4 rw 0 0\n/dev/mapper/vg-lv /z ext4 rw 0 0\n",
    after:
      "# /dev/sda2 was on / during installation\nUUID=root-uuid\t/\txfs\tdefaults\t0\t1\n  UUID=boot-uuid /boot  ext4 ro,noatime 0 2 # slow\n/srv/a /srv/b none bind 0 0\n/swapfile none swap sw 0 0\n//nas/x /mnt cifs ro 0 0\nUUID=x /y ext4 rw 0 0\n/dev/mapper/vg-lv /z ext4 rw 0 0\n",
  },
  {
    family: "by-path and by-id names that can mean one volume only",
    path: "/etc/fstab",
    before:
      "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part2 / xfs defaults 0 0\n/dev/disk/by-id/wwn-0x6000c29f-part1 /boot ext4 rw 0 0\n/dev/disk/by-id/scsi-36000-part2 /other ext4 rw 0 0\n",
    after:
      "UUID=root-uuid / xfs defaults 0 0\n/dev/disk/by-id/wwn-0x6000c29f-part1 /boot ext4 rw 0 0\n/dev/disk/by-id/scsi-36000-part2 /other ext4 rw 0 0\n",
  },
  {
    family: "Debian's encrypted disk",
    path: "/etc/crypttab",
    before: "# <target> <source>\nsda5_crypt /dev/sda5 none luks,discard\nother UUID=abc none luks\n",
    after: "# <target> <source>\nsda5_crypt UUID=luks-uuid none luks,discard\nother UUID=abc none luks\n",
  },
  {
    family: "Debian's menu",
    path: "/grub/grub.cfg",
    before:
      "set root='hd0,msdos1'\n\tlinux\t/vmlinuz-6.1 root=/dev/sda2 ro  quiet resume=/dev/sda1\n\tinitrd\t/initrd.img-6.1\n# linux root=/dev/sda2\n",
    after:
      "set root='hd0,msdos1'\n\tlinux\t/vmlinuz-6.1 root=UUID=root-uuid ro  quiet resume=UUID=boot-uuid\n\tinitrd\t/initrd.img-6.1\n# linux root=/dev/sda2\n",
  },
  {
    family: "a serial console on request, once",
    path: "/grub/grub.cfg",
    hasSerialConsole: true,
    before: "\tlinux /vmlinuz root=UUID=x ro\n\tlinux /old root=UUID=x console=ttyS1,9600\n",
    after: "\tlinux /vmlinuz root=UUID=x ro console=tty0 console=ttyS0,115200\n\tlinux /old root=UUID=x console=ttyS1,9600\n",
  },
  {
    family: "the words that the next menu is made of",
    path: "/etc/default/grub",
    hasSerialConsole: true,
    before: 'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="root=/dev/sda2 quiet"\n#GRUB_CMDLINE_LINUX="x"\n',
    after: 'GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="root=UUID=root-uuid quiet console=tty0 console=ttyS0,115200"\n#GRUB_CMDLINE_LINUX="x"\n',
  },
  {
    family: "SUSE's default words, which name the disk to resume from",
    path: "/etc/default/grub",
    hasSerialConsole: true,
    before: 'GRUB_CMDLINE_LINUX_DEFAULT="splash=silent resume=/dev/sda1 quiet"\nGRUB_CMDLINE_LINUX=""\n',
    after:
      'GRUB_CMDLINE_LINUX_DEFAULT="splash=silent resume=UUID=boot-uuid quiet"\nGRUB_CMDLINE_LINUX=" console=tty0 console=ttyS0,115200"\n',
  },
  {
    family: "Red Hat's entries",
    path: "/loader/entries/abc-5.14.conf",
    before: "title Red Hat\nlinux /vmlinuz\noptions root=/dev/sda2 ro crashkernel=auto resume=/dev/sda1\n",
    after: "title Red Hat\nlinux /vmlinuz\noptions root=UUID=root-uuid ro crashkernel=auto resume=UUID=boot-uuid\n",
  },
  {
    family: "Red Hat 8's environment block keeps its size",
    path: "/grub2/grubenv",
    before: environment("# GRUB Environment Block\nsaved_entry=x\nkernelopts=root=/dev/sda2 ro \n"),
    after: environment("# GRUB Environment Block\nsaved_entry=x\nkernelopts=root=UUID=root-uuid ro \n"),
  },
  {
    family: "a card's name that asked for its old slot",
    path: "/etc/udev/rules.d/70-persistent-net.rules",
    before:
      '# PCI device 0x15ad:0x07b0 (vmxnet3)\nSUBSYSTEM=="net", ACTION=="add", DRIVERS=="vmxnet3", KERNELS=="0000:03:00.0", ATTR{address}=="00:50:56:AA:BB:01", ATTR{type}=="1", NAME="eth0"\nSUBSYSTEM=="net", DRIVERS=="?*", ATTR{address}=="00:50:56:aa:bb:01", NAME="eth1"\nSUBSYSTEM=="net", DRIVERS=="vmxnet3", ATTR{address}=="00:00:00:00:00:09", NAME="eth9"\n',
    after:
      '# PCI device 0x15ad:0x07b0 (vmxnet3)\nSUBSYSTEM=="net", ACTION=="add", ATTR{address}=="00:50:56:AA:BB:01", ATTR{type}=="1", NAME="eth0"\nSUBSYSTEM=="net", DRIVERS=="?*", ATTR{address}=="00:50:56:aa:bb:01", NAME="eth1"\nSUBSYSTEM=="net", DRIVERS=="vmxnet3", ATTR{address}=="00:00:00:00:00:09", NAME="eth9"\n',
  },
  {
    family: "Ubuntu's netplan that matches the driver",
    path: "/etc/netplan/50-cloud-init.yaml",
    before: 'network:\n  ethernets:\n    main:\n      match:\n        driver: "vmxnet3"\n      dhcp4: true # driver: vmxnet3\n',
    after: 'network:\n  ethernets:\n    main:\n      match:\n        driver: "virtio_net"\n      dhcp4: true # driver: vmxnet3\n',
  },
  {
    family: "systemd-networkd that matches the driver",
    path: "/etc/systemd/network/20-lan.network",
    before: "[Match]\nDriver=e1000e\n[Network]\nDHCP=yes\n",
    after: "[Match]\nDriver=virtio_net\n[Network]\nDHCP=yes\n",
  },
  {
    family: "NetworkManager that matches the driver",
    path: "/etc/NetworkManager/system-connections/lan.nmconnection",
    before: "[connection]\nid=lan\n[match]\ndriver=vmxnet3\n",
    after: "[connection]\nid=lan\n[match]\ndriver=virtio_net\n",
  },
];

function apply({ path, before, hasSerialConsole = false }: Golden) {
  const cut = path.lastIndexOf("/");
  const [folder, name] = [path.slice(0, cut), path.slice(cut + 1)];
  const rule = textRules.find(
    (each) => each.folder === folder && (typeof each.name === "string" ? each.name === name : name.endsWith(each.name.ending)),
  );
  assert.ok(rule !== undefined, `a rule holds ${path}`);
  return (text = before) => rule.rule(text, path, { ...around, hasSerialConsole });
}

describe("textRules", () => {
  for (const golden of goldens)
    it(`${golden.path}: ${golden.family}`, () => {
      const run = apply(golden);
      const { text, changes } = run();
      assert.equal(text, golden.after);
      assert.equal(
        changes.some((line) => !line.includes("!")),
        golden.before !== golden.after,
        changes.join(),
      );
      const again = run(text);
      assert.equal(again.text, text, "the second time changes nothing");
      assert.deepEqual(
        again.changes.filter((line) => !line.includes("!")),
        [],
      );
    });

  it("keep the number of lines of any text, and change nothing when repeated", () => {
    const words = fc.constantFrom(
      "/dev/sda2",
      "\t",
      " ",
      "root=",
      "options ",
      "linux ",
      "#",
      '"',
      "NAME=",
      "driver: vmxnet3",
      "UUID=x",
      "kernelopts=",
    );
    const line = fc.array(words, { maxLength: 8 }).map((parts) => parts.join(""));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 6 }), fc.constantFrom(...textRules), fc.boolean(), (lines, { rule }, hasSerialConsole) => {
        const text = lines.join("\n");
        const once = rule(text, "/x", { ...around, hasSerialConsole });
        assert.equal(once.text.split("\n").length, lines.length === 0 ? 1 : lines.length);
        assert.equal(rule(once.text, "/x", { ...around, hasSerialConsole }).text, once.text);
      }),
    );
  });
});

describe("rewriteInterfaces", () => {
  const before =
    "auto lo\niface lo inet loopback\n# main\nauto ens192\niface ens192 inet static\n  address 10.0.0.5\n  netmask 255.255.255.0\n  gateway 10.0.0.1\n  post-up ip route add 10.9.0.0/16 via 10.0.0.2\niface ens192 inet6 auto\niface ens224 inet static\n  address 10.1.0.5/24\n";

  it("writes one card's IPv4 stanza anew and leaves every other line", () => {
    const text = rewriteInterfaces(before, { guestName: "ens192", addressing: { kind: "dhcp" } });
    assert.equal(
      text,
      "auto lo\niface lo inet loopback\n# main\nauto ens192\niface ens192 inet dhcp\n  post-up ip route add 10.9.0.0/16 via 10.0.0.2\niface ens192 inet6 auto\niface ens224 inet static\n  address 10.1.0.5/24\n",
    );
    assert.equal(rewriteInterfaces(text, { guestName: "ens192", addressing: { kind: "dhcp" } }), text);
  });

  it("gives a fixed address", () => {
    const addressing = { kind: "fixed", address: "10.7.0.9/16", gateway: "10.7.0.1", nameServers: ["10.7.0.2"] } as const;
    const text = rewriteInterfaces("auto ens192\niface ens192 inet dhcp\n", { guestName: "ens192", addressing });
    assert.equal(
      text,
      "auto ens192\niface ens192 inet static\n    address 10.7.0.9/16\n    gateway 10.7.0.1\n    dns-nameservers 10.7.0.2\n",
    );
  });
});
