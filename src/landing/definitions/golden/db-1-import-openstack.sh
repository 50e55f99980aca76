#!/bin/sh
# Makes the machine db-1 in OpenStack: sh import-openstack.sh FLAVOR NETWORK
# The flavor has at least 8 vCPUs, 49152 MiB of memory and a disk of 41 GiB, or none and a volume to boot from.
set -eu
flavor=${1:?"the flavor is missing"}
network=${2:?"the network is missing"}
folder=$(cd "$(dirname "$0")" && pwd)

openstack image create --disk-format qcow2 --container-format bare --min-ram 49152 --min-disk 41 \
  --property hw_disk_bus=virtio --property hw_vif_model=virtio --property hw_machine_type=q35 --property hw_firmware_type=uefi --property os_type=linux \
  --file "$folder/disk1.qcow2" db-1-disk0
openstack image create --disk-format qcow2 --container-format bare --file "$folder/disk0.qcow2" db-1-disk1
openstack volume create --image db-1-disk1 --size 200 db-1-disk1
until [ "$(openstack volume show -f value -c status db-1-disk1)" = available ]; do sleep 5; done
openstack port create --network "$network" --mac-address 00:50:56:0a:0b:0c db-1-nic0 # ens192
openstack port create --network "$network" --mac-address 00:50:56:0a:0b:0d db-1-nic1 # ens224
openstack server create --wait --image db-1-disk0 --flavor "$flavor" --port db-1-nic0 --port db-1-nic1 db-1
openstack server add volume db-1 db-1-disk1
