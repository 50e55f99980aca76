// The proxy: a real squid in the dmz, the site's only way out, and only to the hub's three public names.

import { chmod, chown, mkdir, readFile, writeFile } from "node:fs/promises";
import { runCommand } from "../src/base/run-command.ts";
import { internet, onprem, publicNames } from "./addresses.ts";
import type { LabPlace } from "./place.ts";
import { daemonProcess, endProcesses, labExec, startDaemon, waitUntil } from "./processes.ts";

export const proxyUser = "appliance";

/** Starts squid and returns when both of its doors answer. The password file was written before. */
export async function startProxy(place: LabPlace, passwordFile: string): Promise<void> {
  const folder = `${place.stateFolder}/squid`;
  const account = await proxyAccount();
  await mkdir(folder, { recursive: true });
  await chown(folder, account.user, account.group);
  const password = await readFile(passwordFile, "utf8");
  const hashed = await runCommand("openssl", ["passwd", "-apr1", "-stdin"], { stdin: password });
  await writeFile(`${folder}/users`, `${proxyUser}:${hashed.stdout.trim()}\n`, { mode: 0o640 });
  await chown(`${folder}/users`, 0, account.group);
  await chmod(`${folder}/users`, 0o640);
  await writeFile(`${folder}/squid.conf`, renderConfiguration(folder));
  await startDaemon({ place, zone: "dmz", name: "squid", argv: ["squid", "-N", "-f", `${folder}/squid.conf`] });
  await waitUntil(
    "the proxy",
    20_000,
    async () => (await isOpen(place, onprem.proxyPort)) && (await isOpen(place, onprem.proxyWithPasswordPort)),
  );
}

export async function stopProxy(place: LabPlace): Promise<void> {
  const id = await daemonProcess(place, `${place.stateFolder}/squid.pid`);
  if (id !== undefined) await endProcesses([id]);
}

export async function isProxyUp(place: LabPlace): Promise<boolean> {
  return (await daemonProcess(place, `${place.stateFolder}/squid.pid`)) !== undefined;
}

function renderConfiguration(folder: string): string {
  const { gateway, proxyPort, proxyWithPasswordPort } = onprem;
  return `# Port ${proxyPort} asks for no password, port ${proxyWithPasswordPort} answers 407 without one.
http_port ${gateway}:${proxyPort}
http_port ${gateway}:${proxyWithPasswordPort} name=with-password
visible_hostname proxy
pid_filename none
access_log stdio:${folder}/access.log
cache_log ${folder}/cache.log
coredump_dir ${folder}
cache deny all
cache_mem 8 MB
icp_port 0
pinger_enable off
shutdown_lifetime 0 seconds
dns_nameservers ${internet.dns}
hosts_file none
connect_timeout 10 seconds
auth_param basic program /usr/lib/squid/basic_ncsa_auth ${folder}/users
auth_param basic children 1 startup=0 idle=1
auth_param basic realm site proxy
acl asks_password myportname with-password
acl known_user proxy_auth REQUIRED
acl hub dstdomain -n ${publicNames.join(" ")}
acl tls_port port 443
acl CONNECT method CONNECT
http_access deny !tls_port
http_access deny !CONNECT
http_access deny !hub
http_access allow !asks_password
http_access allow known_user
http_access deny all
`;
}

async function isOpen(place: LabPlace, port: number): Promise<boolean> {
  const result = await labExec(place, "onprem", ["bash", "-c", `exec 3<>/dev/tcp/${onprem.gateway}/${port}`]);
  return result.exitCode === 0;
}

async function proxyAccount(): Promise<{ readonly user: number; readonly group: number }> {
  const fields = (await runCommand("getent", ["passwd", "proxy"])).stdout.split(":");
  return { user: Number(fields[2]), group: Number(fields[3]) };
}
