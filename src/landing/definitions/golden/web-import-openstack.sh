#!/bin/sh
# Makes the machine web in OpenStack: sh import-openstack.sh FLAVOR NETWORK
# The flavor has at least 2 vCPUs, 2048 MiB of memory and a disk of 10 GiB, or none and a volume to boot from.
set -eu
flavor=${1:?"the flavor is missing"}
network=${2:?"the network is missing"}
folder=$(cd "$(dirname "$0")" && pwd)

openstack image create --disk-format qcow2 --container-format bare --min-ram 2048 --min-disk 10 \
  --property hw_disk_bus=virtio --property hw_vif_model=virtio --property hw_machine_type=q35 --property hw_firmware_type=bios --property os_type=linux \
  --file "$folder/disk0.qcow2" web-disk0
openstack port create --network "$network" --mac-address 00:50:56:0a:0b:0c web-nic0 # ens192
openstack server create --wait --image web-disk0 --flavor "$flavor" --port web-nic0 web
