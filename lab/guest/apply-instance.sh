#!/bin/sh
# Takes name, operator password and administrator key from the machine's firmware configuration and keeps them on the disk.
# A machine without that configuration, such as a landed one, keeps what it has.
set -eu
modprobe qemu_fw_cfg 2>/dev/null || exit 0
given=/sys/firmware/qemu_fw_cfg/by_name/opt/watari
[ -d "$given" ] || exit 0
kept=/var/lib/watari-instance
mkdir -p -m 700 "$kept"

changed() {
  [ -f "$given/$1/raw" ] && ! cmp -s "$given/$1/raw" "$kept/$1"
}
keep() {
  cat "$given/$1/raw" >"$kept/$1"
}
umask 077
if changed hostname; then
  cat "$given/hostname/raw" >/etc/hostname
  chmod 644 /etc/hostname
  hostname -F /etc/hostname
  printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$(cat /etc/hostname)" >/etc/hosts
  chmod 644 /etc/hosts
  keep hostname
fi
if changed operator-hash; then
  printf 'operator:%s\n' "$(cat "$given/operator-hash/raw")" | chpasswd -e
  keep operator-hash
fi
if changed administrator-key; then
  mkdir -p /root/.ssh
  cat "$given/administrator-key/raw" >/root/.ssh/authorized_keys
  keep administrator-key
fi
[ -f /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
sync
