// The machine that the proof of points replicates: four filesystems on two disks, PostgreSQL across two of them, stamps and churn, and the real agent.

import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { buildAgentBundle } from "../../../src/agent/bundle.ts";
import { agentPlaces, agentUnitText } from "../../../src/agent/unit.ts";
import type { TestSite } from "../../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../../src/base/clock.ts";
import type { MachineId } from "../../../src/contract/ids.ts";
import type { Guest } from "../../system/agent-guest.ts";

/** Root on vda; the others on partitions of vdb. PostgreSQL has its tables on the second and its log on the third. */
const folders = ["/var/stamps", "/mnt/e", "/mnt/x", "/mnt/b"] as const;
export const stampSlots = 256;
/** Few enough to leave an emulated processor to the others; still many times what a freeze takes. */
const stampsPerSecond = 25;

const disks = `set -e
sgdisk -n1:0:+1G -n2:0:+1G -n3:0:0 /dev/vdb >/dev/null; udevadm settle; [ -e /dev/vdb3 ] || { blockdev --rereadpt /dev/vdb; udevadm settle; }
mkfs.ext4 -q /dev/vdb1; mkfs.xfs -q /dev/vdb2; mkfs.btrfs -q /dev/vdb3
mkdir -p ${folders.join(" ")} /opt/proof; mount /dev/vdb1 /mnt/e; mount /dev/vdb2 /mnt/x; mount /dev/vdb3 /mnt/b`;

const database = `set -e
systemctl stop postgresql >/dev/null 2>&1 || true
bin=$(ls -d /usr/lib/postgresql/*/bin); install -d -o postgres /mnt/e/data /mnt/x/wal
runuser -u postgres -- $bin/initdb -D /mnt/e/data -X /mnt/x/wal >/dev/null
printf "listen_addresses = ''\\nunix_socket_directories = '/tmp'\\nshared_buffers = 48MB\\nmax_wal_size = 128MB\\n" >> /mnt/e/data/postgresql.conf
runuser -u postgres -- $bin/pg_ctl -D /mnt/e/data -l /mnt/e/data/log -w start >/dev/null
runuser -u postgres -- psql -qh /tmp -c "create table rest (n serial, at timestamptz default now())" postgres
runuser -u postgres -- $bin/pgbench -h /tmp -qi -s 2 postgres >/dev/null 2>&1`;

/** Before the point: a row that only it can have brought, and everything in memory to the disk. */
const script = `#!/bin/sh
case $1 in
  --pre) runuser -u postgres -- psql -qh /tmp -c "insert into rest default values" -c checkpoint postgres && touch /run/resting && echo "checkpoint done" ;;
  --post) rm -f /run/resting ;;
esac
`;

async function bundle(name: string): Promise<Uint8Array> {
  const entry = fileURLToPath(new URL(`./${name}`, import.meta.url));
  const made = await build({ entryPoints: [entry], bundle: true, write: false, platform: "node", format: "esm", logLevel: "silent" });
  const bytes = made.outputFiles[0]?.contents;
  if (bytes === undefined) throw new Error("assertion failed: esbuild made one file");
  return bytes;
}

/** Puts a program of this folder into the guest and answers the command that runs it. */
export async function putProgram(guest: Guest, name: string): Promise<string> {
  const path = `/opt/proof/${name.replace(/ts$/, "mjs")}`;
  await guest.run(`mkdir -p /opt/proof; cat > ${path}`, await bundle(name));
  return `${agentPlaces.node} --disable-warning=ExperimentalWarning ${path}`;
}

export async function prepareSource(guest: Guest): Promise<void> {
  await guest.run(disks);
  await guest.run(database);
}

export interface Load {
  /** Of random writes. */
  readonly churnBytesPerSecond: number;
  /** What all of the load may take of the processors: 100 is one. */
  readonly cpuPercentMax: number;
}

/** Starts the load in control groups of its own; resolves when all of it is at work. */
export async function startLoad(guest: Guest, { churnBytesPerSecond, cpuPercentMax }: Load): Promise<void> {
  await guest.run(`systemctl set-property --runtime load.slice CPUQuota=${cpuPercentMax}%`);
  const program = await putProgram(guest, "load-child.ts");
  const run = (unit: string, command: string): string =>
    `systemd-run -q --slice=load --unit=${unit} -p StandardOutput=file:/run/${unit}.out -p StandardError=file:/run/${unit}.err sh -c '${command}'`;
  await guest.run(run("stamps", `exec ${program} stamps ${stampsPerSecond} ${stampSlots} ${folders.join(" ")}`));
  await guest.run(run("churn", `exec ${program} churn ${churnBytesPerSecond} 0 ${folders.slice(1).join(" ")}`));
  await guest.run(
    run("pgbench", "exec runuser -u postgres -- $(ls /usr/lib/postgresql/*/bin/pgbench) -h /tmp -c 2 -R 20 -T 100000 postgres"),
  );
  await guest.run(
    "for i in $(seq 240); do grep -q ready /run/stamps.out && grep -q ready /run/churn.out && systemctl is-active -q pgbench && exit 0; sleep 1; done; cat /run/*.err; exit 1",
  );
}

/** What the random writes came to so far. */
export async function churnedBytes(guest: Guest): Promise<number> {
  return Number(await guest.run("awk '/^wchar/ { print $2 }' /proc/$(systemctl show -p MainPID --value churn)/io"));
}

/** Installs and registers the agent as the appliance does, and starts its service. */
export async function startAgent(guest: Guest, site: TestSite, at: { readonly host: string; readonly cores: number }): Promise<MachineId> {
  await guest.run(`cat > ${agentPlaces.program}`, (await buildAgentBundle()).bytes);
  const text = new TextEncoder();
  await guest.run(`mkdir -p ${agentPlaces.stateFolder}; cat > /run/ca.pem`, text.encode(site.authority.caPem));
  await guest.run("cat > /run/passphrase; chmod 600 /run/passphrase", text.encode(site.authority.passphrase));
  await guest.run(`cat > ${agentPlaces.unitFile}`, text.encode(agentUnitText({ cores: at.cores })));
  await guest.run(
    "install -d -m 755 /etc/watari/agent/scripts.d; cat > /etc/watari/agent/scripts.d/50-postgresql; chmod 755 /etc/watari/agent/scripts.d/*",
    text.encode(script),
  );
  const run = `${agentPlaces.node} --disable-warning=ExperimentalWarning ${agentPlaces.program}`;
  await guest.run(`${run} register --appliance ${at.host}:${site.controlPort} --ca /run/ca.pem --passphrase-file /run/passphrase`);
  await guest.run(`systemctl daemon-reload; systemctl start ${agentPlaces.unitName}`);
  for (;;) {
    const [machine] = site.registry.list();
    if (machine !== undefined) return machine.machineId;
    await systemClock.sleep(200);
  }
}

/** What the agent's journal says, for a proof that fails. */
export async function agentJournal(guest: Guest): Promise<string> {
  return await guest.run(`journalctl -u ${agentPlaces.unitName} --no-pager -o cat | tail -n 40`);
}
