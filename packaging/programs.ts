// What is in the package of each program: files, dependencies, maintainer's scripts.

import { chmod, copyFile, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { toDate } from "../src/base/clock.ts";
import { bundleProgram, noticesOf } from "./bundle.ts";
import { buildDebianPackage } from "./debian-package.ts";

export const programNames = ["hub", "appliance"] as const;
export type ProgramName = (typeof programNames)[number];

export function isProgramName(text: string): text is ProgramName {
  return programNames.some((name) => name === text);
}

interface ProgramPackage {
  readonly summary: string;
  readonly about: readonly string[];
  readonly depends: readonly string[];
  readonly recommends: readonly string[];
  readonly conflicts: string;
  /** Files of packaging/<name>/ by where they go. */
  readonly files: Readonly<Record<string, string>>;
  readonly configurationFiles: readonly string[];
}

const common = ["libc6 (>= 2.36)", "libstdc++6 (>= 12)", "libatomic1", "ca-certificates", "iproute2"];

const packages: Readonly<Record<ProgramName, ProgramPackage>> = {
  hub: {
    summary: "moves machines into a landing zone: control plane of Watari",
    about: [
      "Speaks the Azure Resource Manager dialect, keeps vaults and recovery points,",
      "orders replication appliances, and lands machines on this host with QEMU.",
      "Brings its own Node.js, which nothing else uses.",
    ],
    depends: [
      ...["postgresql", "qemu-system-x86", "qemu-system-common", "qemu-utils", "dnsmasq-base", "e2fsprogs", "mount"],
      ...["procps", "fuse3 | fuse"],
    ],
    recommends: ["ovmf"],
    conflicts: "watari-appliance",
    files: {
      "watari-hub.service": "usr/lib/systemd/system/watari-hub.service",
      "sysusers.conf": "usr/lib/sysusers.d/watari-hub.conf",
      "modules.conf": "usr/lib/modules-load.d/watari-hub.conf",
      "hub.yaml": "etc/watari/hub.yaml",
      "watari-hub.8": "usr/share/man/man8/watari-hub.8.gz",
    },
    configurationFiles: ["/etc/watari/hub.yaml"],
  },
  appliance: {
    summary: "replicates machines of a closed site: replication appliance of Watari",
    about: [
      "Discovers machines in vCenter, installs the agent on them, receives what they",
      "send and uploads it through private endpoints. Brings its own Node.js, which",
      "also goes to the machines.",
    ],
    depends: ["procps"],
    recommends: ["binutils"],
    conflicts: "watari-hub",
    files: {
      "watari-appliance.service": "usr/lib/systemd/system/watari-appliance.service",
      "sysusers.conf": "usr/lib/sysusers.d/watari-appliance.conf",
      "watari-appliance.8": "usr/share/man/man8/watari-appliance.8.gz",
    },
    configurationFiles: [],
  },
};

/** Node goes as its makers built it; the scripts are few and need no generated parts. */
const overrides = [
  ...["unstripped-binary-or-object", "hardening-no-pie", "embedded-library"].map((tag) => `${tag} *bin/node*`),
  "maintainer-script-calls-systemctl *",
];

const scripts = ["postinst", "prerm", "postrm"];
const maintainer = "Watari authors <maintainers@watari.invalid>";

export interface PackageWish {
  readonly version: string;
  readonly epochSeconds: number;
  /** An empty folder for what is needed on the way. */
  readonly work: string;
  /** Gets the package. */
  readonly folder: string;
  readonly compression: "xz" | "none";
  /** Goes into the package as its Node; the one that runs this unless told. */
  readonly nodePath?: string;
}

/** The package, and its files as they were packed: a folder in the work folder. */
export interface MadePackage {
  readonly tree: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

export async function makePackage(name: ProgramName, wish: PackageWish): Promise<MadePackage> {
  const { summary, about, depends, recommends, conflicts, files, configurationFiles } = packages[name];
  const full = `watari-${name}`;
  const tree = join(wish.work, "tree");
  await writeProgram(tree, full, wish.nodePath ?? process.execPath);
  const sources = join(import.meta.dirname, name);
  for (const [from, to] of Object.entries(files)) {
    const bytes = await readFile(join(sources, from));
    await put(join(tree, to), to.endsWith(".gz") ? zipped(bytes) : bytes, 0o644);
  }
  await writeDocuments(tree, full, wish);
  const path = join(wish.folder, `${full}_${wish.version}_amd64.deb`);
  await buildDebianPackage(
    {
      tree,
      fields: {
        Package: full,
        Version: wish.version,
        Architecture: "amd64",
        Maintainer: maintainer,
        Section: "admin",
        Priority: "optional",
        "Pre-Depends": "systemd",
        Depends: [...common, ...depends].join(", "),
        Recommends: recommends.join(", "),
        Conflicts: conflicts,
      },
      description: [summary, ...about],
      scripts: Object.fromEntries(await Promise.all(scripts.map(async (each) => [each, await readFile(join(sources, each), "utf8")]))),
      configurationFiles,
      epochSeconds: wish.epochSeconds,
      compression: wish.compression,
    },
    path,
  );
  return {
    tree,
    path,
    sizeBytes: (await stat(path)).size,
    sha256: createHash("sha256")
      .update(await readFile(path))
      .digest("hex"),
  };
}

/** Node as its makers built it, the bundle, and the command that starts both. */
async function writeProgram(tree: string, full: string, nodePath: string): Promise<void> {
  const home = join(tree, "usr/lib", full);
  const node = join(home, "bin/node");
  await mkdir(dirname(node), { recursive: true });
  await copyFile(nodePath, node);
  await chmod(node, 0o755);
  const notices = await noticesOf(await bundleProgram(home));
  await put(join(tree, "usr/share/doc", full, "third-party.gz"), zipped(Buffer.from(notices)), 0o644);
  const command = `#!/bin/sh\nexec /usr/lib/${full}/bin/node --disable-warning=ExperimentalWarning /usr/lib/${full}/main.mjs "$@"\n`;
  await put(join(tree, "usr/bin/watari"), Buffer.from(command), 0o755);
  await put(join(tree, "usr/share/man/man1/watari.1.gz"), zipped(await readFile(join(import.meta.dirname, "watari.1"))), 0o644);
  await put(join(tree, "usr/share/lintian/overrides", full), Buffer.from(overrides.map((line) => `${full}: ${line}\n`).join("")), 0o644);
}

async function writeDocuments(tree: string, full: string, { version, epochSeconds }: PackageWish): Promise<void> {
  const folder = join(tree, "usr/share/doc", full);
  const copyright = `Copyright 2026 the Watari authors\n\nWatari is under the Apache License 2.0: /usr/share/common-licenses/Apache-2.0.
The libraries in it and their licences: third-party.gz.
Node.js ${process.version}, in /usr/lib/${full}/bin, is under the MIT licence; its parts have licences of their own:
https://github.com/nodejs/node/blob/${process.version}/LICENSE
`;
  await put(join(folder, "copyright"), Buffer.from(copyright), 0o644);
  const date = toDate(epochSeconds * 1000)
    .toUTCString()
    .replace("GMT", "+0000");
  const changelog = `${full} (${version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n -- ${maintainer}  ${date}\n`;
  await put(join(folder, "changelog.gz"), zipped(Buffer.from(changelog)), 0o644);
}

/** Without a name and a time in it, so that the same text gives the same bytes. */
function zipped(bytes: Uint8Array): Uint8Array {
  return gzipSync(bytes, { level: 9 });
}

/** Modes are the package's, whatever the builder's umask is. */
async function put(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
  await chmod(path, mode);
}
