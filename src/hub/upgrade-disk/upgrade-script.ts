// What runs inside a landed copy to upgrade it from the disk beside it. It lies on that disk; hydration adds only a unit that calls it.

import { upgradeMount } from "../../contract/os-upgrade.ts";

/**
 * Written to /dev/ttyS0, a line each: `WATARI-OS-UPGRADE <running|done|failed> <percent> <text>`. Beside the script lie `plan` (shell variables
 * from, to, version), `removals` (names of packages that the upgrade takes away) and `archive`, a flat repository with every package that it needs.
 * Nothing is changed before a simulation by the guest's own apt agrees with the plan. A run that was cut off goes on at the next boot.
 */
export const upgradeScript = String.raw`#!/bin/sh
set -u
disk=${upgradeMount}
state=/var/lib/watari-os-upgrade
log=/var/log/watari-os-upgrade.log
. "$disk/plan"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p "$state/lists/partial"
exec >>"$log" 2>&1

tell() {
  echo "$(date -u +%FT%TZ) $*"
  printf '\nWATARI-OS-UPGRADE %s\n' "$*" >/dev/ttyS0 2>/dev/null || true
}
fail() {
  echo "$1" >"$state/failure"
  echo failed >"$state/phase"
  tell failed 100 "$1"
  tail -n 15 "$log" | while read -r line; do printf 'watari-os-upgrade: %s\n' "$line" >/dev/ttyS0 2>/dev/null; done
  exit 1
}

apt() {
  apt-get -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$state/lists" \
    -o APT::Install-Recommends=true -o Acquire::Check-Valid-Until=false -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}
# apt's own words about its progress become ours, every fifth percent, between the two bounds.
follow() {
  low=$1; span=$2; last=-1
  while IFS=: read -r kind name percent text; do
    case $kind in pmstatus) ;; *) continue ;; esac
    now=$((low + span * $(echo "$percent" | cut -d. -f1) / 100))
    [ $((now / 5)) -eq $((last / 5)) ] && [ "$last" -ge 0 ] && continue
    last=$now
    tell running "$now" "$text"
  done
}
run_apt() {
  low=$1; span=$2; shift 2
  rm -f "$state/status" "$state/progress"
  mkfifo "$state/progress"
  follow "$low" "$span" <"$state/progress" &
  apt -y -o APT::Status-Fd=3 "$@" 3>"$state/progress"
  result=$?
  wait
  return $result
}
codename() { (. /etc/os-release; echo "$VERSION_CODENAME"); }

upgrade() {
  tell running 0 "from $from to $to"
  echo "deb [trusted=yes] file:$disk/archive ./" >"$state/sources.list"
  apt update || fail "the packages on the upgrade disk could not be read"
  # What a cut left half done, before anything is judged.
  dpkg --configure -a || fail "packages were left half configured, and could not be configured"
  held=$(apt-mark showhold | tr '\n' ' ')
  [ -z "$held" ] || fail "packages are held, and an upgrade must not leave them: $held"
  apt -s full-upgrade >"$state/simulation" || fail "the simulation of the upgrade failed"
  for name in $(awk '$1 == "Remv" { print $2 }' "$state/simulation"); do
    grep -qxF "$name" "$disk/removals" || fail "the upgrade disk was not made for this machine: it would remove $name"
  done
  need=$(awk '/^Package:/ { name = $2 } /^Installed-Size:/ { print name, $2 }' "$disk/archive/Packages" | while read -r name size; do
    old=$(dpkg-query -W -f '$''{Installed-Size}' "$name" 2>/dev/null || echo 0)
    echo $((size - old))
  done | awk '{ sum += $1 } END { print (sum > 0 ? sum : 0) + 300 * 1024 }')
  have=$(df -Pk /usr | awk 'NR == 2 { print $4 }')
  [ "$have" -ge "$need" ] || fail "$((need / 1024)) MiB must be free on /usr, $((have / 1024)) are"
  if dpkg-query -W -f '$''{Status}' grub-pc 2>/dev/null | grep -q ' installed'; then
    # Its old answer names a disk of the old hardware.
    part=$(findmnt -nvo SOURCE /boot || findmnt -nvo SOURCE /)
    top=$(lsblk -nslpo NAME,TYPE "$part" | awk '$2 == "disk" { print $1; exit }')
    [ -b "$top" ] && echo "grub-pc grub-pc/install_devices multiselect $top" | debconf-set-selections
  fi
  run_apt 5 40 upgrade --without-new-pkgs || fail "the upgrade of packages that bring no new ones failed"
  run_apt 45 45 full-upgrade || fail "the upgrade failed"
  tell running 92 "package sources of $to"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] && grep -qw "$from" "$file" || continue
    [ -e "$file.watari-orig" ] || cp -p "$file" "$file.watari-orig"
    sed -i "s/\b$from\b/$to/g" "$file"
  done
  echo rebooting >"$state/phase"
  sync
  tell running 95 "starting again with the new kernel"
  systemctl reboot
}
verify() {
  now=$(codename)
  [ "$now" = "$to" ] || fail "after the upgrade the system says that it is $now"
  audit=$(dpkg --audit)
  [ -z "$audit" ] || fail "packages are not whole: $(echo "$audit" | head -n 3 | tr '\n' ' ')"
  newest=$(ls /boot/vmlinuz-* | sort -V | tail -n 1)
  [ "/boot/vmlinuz-$(uname -r)" = "$newest" ] || fail "the kernel $(uname -r) runs, not the newest"
  echo done >"$state/phase"
  tell done 100 "$to $(cat /etc/debian_version), kernel $(uname -r)"
  systemctl disable watari-os-upgrade.service
}

case $(cat "$state/phase" 2>/dev/null) in
  "" | upgrading)
    now=$(codename)
    if [ ! -e "$state/phase" ] && [ "$now" != "$from" ]; then fail "the disk upgrades $from, and this system is $now"; fi
    echo upgrading >"$state/phase"
    upgrade
    ;;
  rebooting) verify ;;
  failed) tell failed 100 "$(cat "$state/failure")" ;;
esac
`;
