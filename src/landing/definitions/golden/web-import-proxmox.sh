#!/bin/sh
# Makes the machine web in Proxmox VE. Run it on a node: sh import-proxmox.sh VMID [STORAGE] [BRIDGE]
set -eu
vmid=${1:?"the id of the new machine is missing"}
storage=${2:-local-lvm}
bridge=${3:-vmbr0}
folder=$(cd "$(dirname "$0")" && pwd)

qm create "$vmid" --name web --ostype l26 --machine q35 --cpu host --cores 2 --memory 2048 \
  --bios seabios --vga std --serial0 socket --onboot 0
qm set "$vmid" --net0 "virtio=00:50:56:0A:0B:0C,bridge=$bridge" # ens192
qm set "$vmid" --virtio0 "$storage:0,import-from=$folder/disk0.qcow2,discard=on"
qm set "$vmid" --boot order=virtio0
echo "qm start $vmid starts it"
