#!/bin/bash
# Runs in a Debian guest that has never seen Watari: install, start, use, break, upgrade, remove, purge. One line for each step.
set -u
config=/etc/watari/hub.yaml
export WATARI_PROFILE=/tmp/profile.json HOME=/root
here=/mnt
step() {
  local name=$1 out status
  shift
  out=$(set -e; "$@" 2>&1) # No condition around it: there bash would not heed -e.
  status=$?
  if [ "$status" = 0 ]; then echo "STEP ok $name"; else echo "STEP FAIL $name ($status): $(echo "$out" | tail -n 8 | tr '\n' '|' | cut -c1-1500)"; fi
}
main_pid() { systemctl show -p MainPID --value watari-hub; }
is_healthy() { watari hub health --config "$config" --timeout 60; }
until_healthy_as_another() {
  local before=$1 _
  local restarts
  restarts=$(systemctl show -p NRestarts --value watari-hub)
  for _ in $(seq 120); do
    if [ "$(main_pid)" != "$before" ] && [ "$(main_pid)" != 0 ] && [ "$(systemctl is-active watari-hub)" = active ]; then is_healthy; return; fi
    [ "$(systemctl show -p NRestarts --value watari-hub)" -gt $((restarts + 2)) ] && break
    sleep 1
  done
  journalctl -u watari-hub --no-pager -o cat | grep -E "^(watari:| {2}[a-z])|ended|exited|FATAL" | tail -n 8 | cut -c1-300
  return 1
}
has_vault() { watari vault list --json | grep -q '"vault1"'; }

install_first() { dpkg -i "$here"/watari-hub_1.0.0_amd64.deb; }
starts_nothing() { [ "$(systemctl is-enabled watari-hub)" = disabled ] && [ "$(systemctl is-active watari-hub)" = inactive ] && [ -z "$(pgrep -u watari-hub)" ]; }
shows_help() { man -w watari-hub 2>/dev/null || test -f /usr/share/man/man8/watari-hub.8.gz; watari --help | grep -q 'watari hub'; watari hub run --help; }
start_as_shipped() { systemctl start watari-hub; is_healthy; }
configure() {
  ip link add br-landing type bridge
  ip address add 10.200.0.1/24 dev br-landing
  ip address add 10.200.0.53/24 dev br-landing
  ip link set br-landing up
  sed -i 's/^networks: \[\]$//' "$config"
  cat >> "$config" <<YAML
networks:
  - virtualNetwork: landing
    cidr: 10.200.0.0/24
    interface: br-landing
    endpointAddresses: { first: 10.200.0.4, last: 10.200.0.50 }
    dnsAddress: 10.200.0.53
landing:
  networks:
    landing: { kind: bridge, bridge: br-landing }
YAML
  systemctl restart watari-hub
  is_healthy
}
is_fenced() {
  local status=/proc/$(main_pid)/status
  [ "$(ps -o user= -p "$(main_pid)" | cut -c1-10)" = watari-hub ]
  grep -q '^NoNewPrivs:.1$' "$status"
  grep -q '^Seccomp:.2$' "$status"
  local postmaster
  postmaster=$(head -n 1 /var/lib/watari/hub/pg/data/postmaster.pid)
  grep -q '^CapPrm:.0000000000000000$' "/proc/$postmaster/status"
}
sign_in() { watari login --operator-file /var/lib/watari/hub/operator.json --address 127.0.0.1; }
make_vault() {
  watari network create landing --cidr 10.200.0.0/24
  watari storage create packs1 --network landing
  watari vault create vault1 --storage packs1 --network landing
  has_vault
  ip -o address show dev br-landing | grep -q '/32'
  pgrep -u watari-hub dnsmasq
}
restart() { systemctl restart watari-hub; has_vault; }
kill_it() {
  local before
  before=$(main_pid)
  kill -KILL "$before"
  until_healthy_as_another "$before"
  journalctl -u watari-hub --no-pager | grep -q 'database adopted'
  has_vault
}
hang_it() {
  mkdir -p /run/systemd/system/watari-hub.service.d
  printf '[Service]\nWatchdogSec=20\n' > /run/systemd/system/watari-hub.service.d/trial.conf
  systemctl daemon-reload
  systemctl restart watari-hub
  local before
  before=$(main_pid)
  kill -STOP "$before"
  until_healthy_as_another "$before"
  journalctl -u watari-hub --no-pager | grep -qi 'watchdog timeout'
  rm -r /run/systemd/system/watari-hub.service.d
  systemctl daemon-reload
}
back_up() {
  runuser -u watari-hub -- watari hub backup /var/lib/watari/trial.backup --config "$config"
  runuser -u watari-hub -- watari hub audit verify --config "$config"
  runuser -u watari-hub -- watari hub collect --config "$config"
}
primitives() {
  systemctl stop watari-hub
  mkdir -p /run/systemd/system/watari-hub.service.d
  printf '[Service]\nType=oneshot\nWatchdogSec=0\nExecStart=\nExecStart=/bin/bash %s/primitives.sh\nRestart=no\n' "$here" > /run/systemd/system/watari-hub.service.d/trial.conf
  systemctl daemon-reload
  systemctl start watari-hub || true
  journalctl -u watari-hub --no-pager -o cat | tail -n 15
  rm -r /run/systemd/system/watari-hub.service.d
  systemctl daemon-reload
  journalctl -u watari-hub --no-pager -o cat | grep -q 'PRIMITIVE all'
  systemctl start watari-hub
  is_healthy
}
upgrade() {
  local before
  before=$(main_pid)
  dpkg -i "$here"/watari-hub_1.0.1_amd64.deb
  [ "$(main_pid)" != "$before" ]
  is_healthy
  has_vault
  grep -q br-landing "$config"
}
remove() {
  dpkg -r watari-hub
  [ -z "$(pgrep -u watari-hub)" ]
  test -s /var/lib/watari/hub/master.key
  test -s "$config"
  if systemctl cat watari-hub; then return 1; fi
}
reinstall() {
  dpkg -i "$here"/watari-hub_1.0.1_amd64.deb
  systemctl enable --now watari-hub
  is_healthy
  has_vault
}
purge() {
  dpkg -P watari-hub
  [ -z "$(pgrep -f /usr/lib/watari-hub)" ]
  if id watari-hub; then return 1; fi
  local left
  left=$(find / -xdev \( -name '*watari*' -o -user 64999 \) -not -path '/proc/*' -not -path '/mnt/*' -not -path '/sys/*' -not -path '/tmp/systemd-private-*' -not -path '/var/tmp/systemd-private-*' -not -path '/var/lib/systemd/*stamp*')
  echo "left: $left"
  [ -z "$left" ]
  [ -z "$(find / -xdev -nouser -not -path '/proc/*' | head)" ]
}

step "the package installs" install_first
step "nothing is enabled or started by it" starts_nothing
step "help is there" shows_help
step "the hub starts as it is shipped, and answers when systemctl returns" start_as_shipped
step "the hub serves a network of the landing zone" configure
step "it runs as its own user with few rights, its database with none" is_fenced
step "an operator signs in" sign_in
step "a vault is made, with private endpoints and names" make_vault
step "a restart keeps it" restart
step "a killed hub comes back and adopts its database" kill_it
step "a hub that hangs is replaced by the watchdog" hang_it
step "backup, audit and collect run as the hub's user" back_up
step "what landing needs works inside the unit's fences" primitives
step "an upgrade restarts the hub and keeps state and configuration" upgrade
step "removal keeps state and configuration" remove
step "a new installation goes on with them" reinstall
echo "NOTE $(systemd-analyze security watari-hub --no-pager | tail -n 1)"
echo "NOTE memory of the unit: $(systemctl show -p MemoryCurrent --value watari-hub)"
step "a purge leaves nothing" purge
echo "TRIAL DONE"
systemctl poweroff
