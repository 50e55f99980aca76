#!/bin/sh
# Finds what this machine was told when it was deployed, and writes it into its settings. Once; without an answer set-up asks.
set -eu
# What is written here is read by other services' users; nothing of it is secret.
umask 022
environment=/run/watari-ovf-environment.xml
bytes_max=262144
kind=$(systemd-detect-virt || true)
found=nothing

if [ "$kind" = vmware ] && vmtoolsd --cmd 'info-get guestinfo.ovfEnv' 2>/dev/null | head -c $bytes_max > $environment && [ -s $environment ]; then
  found="VMware"
fi
if [ "$found" = nothing ]; then
  modprobe qemu_fw_cfg 2>/dev/null || true
  given=/sys/firmware/qemu_fw_cfg/by_name/opt/org.watari/ovf-environment/raw
  if [ -r $given ] && head -c $bytes_max $given > $environment && [ -s $environment ]; then found="firmware configuration"; fi
fi
if [ "$found" = nothing ]; then
  # The ISO transport of OVF: a disc with ovf-env.xml.
  for device in /dev/sr*; do
    [ -b "$device" ] || continue
    mkdir -p /run/watari-disc
    mount -o ro,nosuid,nodev,noexec "$device" /run/watari-disc 2>/dev/null || continue
    if [ -f /run/watari-disc/ovf-env.xml ]; then
      head -c $bytes_max /run/watari-disc/ovf-env.xml > $environment
      found="disc"
    fi
    umount /run/watari-disc
    [ "$found" = nothing ] || break
  done
fi

device=$(ls /sys/class/net | grep -v -x lo | head -n 1)
# One way for every machine: the set-up that a person runs at the console, without the person. What fails is left for the set-up page.
if [ "$found" = nothing ]; then
  printf '<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"><PropertySection/></Environment>\n' > $environment
fi
watari appliance setup --ovf-environment $environment --device "${device:-eth0}" --state /var/lib/watari-appliance --keep-going --no-start ||
  echo "the set-up did not end: sudo watari appliance setup goes on"
mkdir -p /var/lib/watari-appliance
chown -R watari-appliance: /var/lib/watari-appliance
mkdir -p /var/lib/watari-image
touch /var/lib/watari-image/first-boot-done
echo "first boot done, told by $found"
