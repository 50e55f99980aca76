#!/bin/bash
# Finishes a fresh image on the hardware it is made for: boot loader, swap, LVM, XFS, and an initramfs with only this hardware's drivers.
# Runs once, in the image's first boot, started by watari-finish.service; says WATARI-IMAGE-READY on the serial line when all went well.
set -euo pipefail
exec >/dev/ttyS0 2>&1
trap 'line=$LINENO; set +e; echo "WATARI-IMAGE-FAILED at line $line"; sync; poweroff -ff' ERR

disk_with_serial() {
  lsblk -dnpo NAME,SERIAL | awk -v serial="$1" '$2 == serial { print $1 }'
}
root_disk=$(disk_with_serial labroot)
data_disk=$(disk_with_serial labdata)
card=$(ls /sys/class/net | grep -v '^lo$')
. /etc/watari-image

echo "finish: network card is $card"
printf 'auto lo\niface lo inet loopback\n\nauto %s\niface %s inet dhcp\n' "$card" "$card" >/etc/network/interfaces

echo "finish: swap, LVM and XFS"
mkswap -q -U "$swap_uuid" "${root_disk}3"
pvcreate -qq "$data_disk"
vgcreate -qq data "$data_disk"
lvcreate -qq -y -n ledger -l 100%FREE data
mkfs.xfs -q /dev/data/ledger
cat >/etc/fstab <<FSTAB
UUID=$root_uuid / ext4 errors=remount-ro 0 1
UUID=$swap_uuid none swap sw 0 0
/dev/mapper/data-ledger /srv/ledger xfs defaults 0 0
FSTAB

echo "finish: initramfs with only this hardware's drivers"
echo 'MODULES=dep' >/etc/initramfs-tools/conf.d/driver-policy
echo 'RESUME=none' >/etc/initramfs-tools/conf.d/resume
update-initramfs -u -k all
initrd=$(ls /boot/initrd.img-*)
lsinitramfs "$initrd" >/run/initramfs-files
grep -q 'vmw_pvscsi\.ko' /run/initramfs-files
if grep -E 'virtio_(blk|scsi|pci)\.ko' /run/initramfs-files; then echo 'finish: the initramfs holds virtio drivers'; false; fi

echo "finish: boot loader"
grub-install --target=i386-pc "$root_disk"
update-grub

systemctl disable -q watari-finish.service
systemctl enable -q ledger.service
rm -f /usr/local/sbin/watari-finish /etc/systemd/system/watari-finish.service /etc/watari-image
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /etc/ssh/ssh_host_*
rm -rf /var/log/journal /var/lib/apt/lists/* /var/cache/apt/*
fstrim /
sync
echo "WATARI-IMAGE-READY card=$card kernel=$(uname -r)"
systemctl poweroff
