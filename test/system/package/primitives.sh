#!/bin/bash
# What landing asks of the kernel, one thing after the other, inside the unit's own fences. Run by the unit in place of the hub.
set -eu
cd "$STATE_DIRECTORY"
say() { echo "PRIMITIVE $*"; }

unshare --net sh -eu -c 'ip link set lo up; ip link add watari0 type bridge; ip tuntap add dev tapx mode tap user "$(id -u)"; ip link set dev tapx master watari0 up'
say "a network namespace with a bridge and a tap"

ip tuntap add dev wtest0 mode tap user "$(id -u)"
ip link set dev wtest0 master br-landing alias "watari $STATE_DIRECTORY/x" up
ip address replace 10.200.0.99/32 dev br-landing
ip address del 10.200.0.99/32 dev br-landing
say "a tap on the host's bridge, an address on it"

unshare --net sh -eu -c 'echo $$ > keeper.pid; ip link set lo up; ip tuntap add dev tapx mode tap user "$(id -u)"; exec sleep 300' &
for _ in $(seq 100); do ip_name=$(cat keeper.pid 2>/dev/null || true); [ -n "$ip_name" ] && nsenter --net="/proc/$ip_name/ns/net" ip link show tapx >/dev/null 2>&1 && break; sleep 0.1; done
qemu-img create -q -f qcow2 disk.qcow2 64M
rm -f qmp.sock
nsenter --net="/proc/$ip_name/ns/net" setpriv --ambient-caps=-all --inh-caps=-all qemu-system-x86_64 -nodefaults -no-user-config \
  -machine q35 -accel tcg -m 64M -display none -S -drive file=disk.qcow2,if=none,id=d0 -device virtio-blk-pci,drive=d0 \
  -netdev tap,ifname=tapx,script=no,downscript=no,id=n0 -device virtio-net-pci,netdev=n0,romfile= -qmp unix:qmp.sock,server=on,wait=off \
  -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -pidfile qemu.pid &
for _ in $(seq 300); do [ -S qmp.sock ] && break; sleep 0.1; done
[ -S qmp.sock ]
grep -q '^CapPrm:.0000000000000000$' "/proc/$(cat qemu.pid)/status"
kill "$(cat qemu.pid)"
say "an emulator without rights on a tap in another namespace"
kill "$ip_name"

truncate -s 64M view.raw
setpriv --pdeathsig KILL qemu-storage-daemon --blockdev '{"driver":"file","filename":"disk.qcow2","node-name":"f"}' \
  --blockdev '{"driver":"qcow2","file":"f","node-name":"q"}' \
  --export "{\"type\":\"fuse\",\"id\":\"v\",\"node-name\":\"q\",\"mountpoint\":\"$STATE_DIRECTORY/view.raw\",\"writable\":true}" &
daemon=$!
for _ in $(seq 300); do grep -q " $STATE_DIRECTORY/view.raw " /proc/self/mounts && break; sleep 0.1; done
mke2fs -q -F view.raw
debugfs -w -R 'mkdir /made' view.raw
kill "$daemon"
wait "$daemon" || true
umount -l "$STATE_DIRECTORY/view.raw" 2>/dev/null || true
say "a filesystem edited in a view over FUSE"
ip link delete dev wtest0
rm -f disk.qcow2 view.raw keeper.pid qemu.pid qmp.sock
say "all"
