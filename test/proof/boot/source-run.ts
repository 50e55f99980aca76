// A proof's guest on its source's hardware, emulated: it starts there, answers, and makes its initramfs for that hardware only.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { guestPort } from "./guest-tree.ts";
import { answerOf, cardsOf, sourceDrivers, type BootGuest } from "./guests.ts";

const runMsMax = 1_500_000;
const answersMax = 300;

/** Shell of the builder: a unit that runs once, at the first start, and ends the machine. The guest's tree stands under /t. */
export function installSourceRun(guest: BootGuest): string {
  const [first] = cardsOf(guest);
  const own = first === undefined || first.kind === "dhcp" ? "127.0.0.1" : first.address.replace(/\/.*$/, "");
  return `cat > /t/usr/local/sbin/on-source <<'END'
#!/bin/sh
exec > /dev/ttyS0 2>&1
for round in $(seq ${answersMax}); do busybox wget -q -O - http://${own}:${guestPort}/index.html && break; sleep 1; done
for card in /sys/class/net/en*; do echo "card $(basename $card) $(basename $(readlink $card/device/driver))"; done
for host in /sys/class/scsi_host/*; do echo "disks $(cat $host/proc_name)"; done
echo MODULES=dep > /etc/initramfs-tools/conf.d/watari
: > /etc/initramfs-tools/modules
update-initramfs -u -k all && for file in /boot/initrd.img-*; do lsinitramfs $file | grep -c 'virtio.*\\.ko' | sed 's/^/virtio modules: /'; done
systemctl disable on-source.service
rm /usr/local/sbin/on-source /etc/systemd/system/on-source.service
sync
echo on-source: done
systemctl poweroff
END
chmod 755 /t/usr/local/sbin/on-source
printf '[Unit]\\nAfter=answer.service\\n[Service]\\nExecStart=/usr/local/sbin/on-source\\n[Install]\\nWantedBy=multi-user.target\\n' > /t/etc/systemd/system/on-source.service
chroot /t systemctl enable on-source.service`;
}

/** Answers a line that says what was seen. Throws with the console's last words when it did not go as it must. */
export async function runSource(guest: BootGuest, diskPaths: readonly string[]): Promise<string> {
  const { disk, card } = sourceDrivers[guest.source ?? "pvscsi-vmxnet3"];
  const folder = await mkdtemp(join(tmpdir(), "watari-source-"));
  const logPath = join(folder, "console");
  try {
    const machine = spawn("qemu-system-x86_64", machineArguments(guest, diskPaths, logPath), { stdio: "ignore", timeout: runMsMax });
    await once(machine, "exit");
    const said = await readFile(logPath, "utf8");
    const wanted = [answerOf(guest), `disks ${disk}`, ...cardsOf(guest).map(({ guestName }) => `card ${guestName} ${card}`)];
    const missing = [...wanted, "on-source: done"].filter((line) => !said.includes(line));
    if (missing.length > 0)
      throw new Error(`${guest.name} on its source's hardware did not say ${missing.join(", ")}: ${said.slice(-2000)}`);
    return `${guest.name} ran on ${disk} and ${card}; in its initramfs are ${/virtio modules: \d+/.exec(said)?.[0] ?? "unknown"}`;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Slots as VMware numbers them, so that the guest calls its cards ens192 and ens224 by itself. */
function machineArguments(guest: BootGuest, diskPaths: readonly string[], logPath: string): readonly string[] {
  const controller = guest.source === "lsi-e1000e" ? "mptsas1068" : "pvscsi";
  const model = guest.source === "lsi-e1000e" ? "e1000e" : "vmxnet3";
  return [
    ...[
      "-accel",
      "tcg,thread=multi",
      "-cpu",
      "max",
      "-smp",
      "2",
      "-m",
      "1024",
      "-machine",
      "q35",
      "-nodefaults",
      "-display",
      "none",
      "-vga",
      "std",
    ], // GRUB asks for a screen.
    ...["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off", "-serial", `file:${logPath}`, "-device", `${controller},id=scsi`],
    ...diskPaths.flatMap((path, index) => [
      ...["-drive", `if=none,id=d${index},format=raw,file=${path}`],
      ...["-device", `scsi-hd,bus=scsi.0,scsi-id=${index},drive=d${index},bootindex=${index}`],
    ]),
    ...cardsOf(guest).flatMap(({ mac, guestName, address }, index) => [
      ...["-device", `pcie-root-port,id=port${index},slot=${guestName.slice(3)},chassis=${index + 1}`],
      ...["-netdev", `user,id=n${index},restrict=on,net=${address.replace(/\.\d+\//, ".0/")}`],
      ...["-device", `${model},bus=port${index},netdev=n${index},mac=${mac},romfile=`],
    ]),
  ];
}
