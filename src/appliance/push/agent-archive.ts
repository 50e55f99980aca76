// The agent as one archive for guests: Node, the agent's bundle and a spare library; made once, kept in the cache.

import { createHash } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { runCommand, tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";

const archiveMsMax = 300_000;

/** Where the agent's program is on this machine. */
export interface AgentFiles {
  readonly nodePath: string;
  readonly bundlePath: string;
  /** systemd unit of the agent; its ExecStart names /opt/watari-agent/bin/node and /opt/watari-agent/agent.mjs. */
  readonly unitText: string;
}

/** Answers the path of a tar.gz with `bin/node`, `agent.mjs` and, when this machine has it, `spare/libatomic.so.1`. */
export async function prepareAgentArchive(files: AgentFiles, cacheFolder: string): Promise<string> {
  const nodePath = await realpath(files.nodePath);
  const { size, mtimeMs } = await stat(nodePath);
  const bundle = await readFile(files.bundlePath);
  const version = createHash("sha256").update(bundle).update(`${nodePath} ${size} ${mtimeMs}`).digest("hex").slice(0, 24);
  const path = join(cacheFolder, `agent-${version}.tar.gz`);
  if (await isFile(path)) return path;
  await mkdir(cacheFolder, { recursive: true, mode: 0o700 });
  const staging = await mkdtemp(join(cacheFolder, ".staging-"));
  try {
    const tree = join(staging, "tree");
    await mkdir(join(tree, "spare"), { recursive: true });
    await mkdir(join(tree, "bin"));
    await copyFile(nodePath, join(tree, "bin", "node"));
    await copyFile(files.bundlePath, join(tree, "agent.mjs"));
    // A fifth smaller without its symbols; where strip is absent the whole file goes.
    await tryCommand("strip", ["--strip-unneeded", join(tree, "bin", "node")], { timeoutMs: archiveMsMax }).catch(() => undefined);
    const library = await findAtomicLibrary();
    if (library !== undefined) await copyFile(library, join(tree, "spare", "libatomic.so.1"));
    await runCommand("chmod", ["-R", "u=rwX,go=rX", tree]);
    await runCommand("chmod", ["755", join(tree, "bin", "node")]);
    const fresh = join(staging, "agent.tar.gz");
    // Level 1: the archive goes over a site's own network once a guest, and gzip is what every guest has.
    await runCommand("tar", ["--owner=0", "--group=0", "-C", tree, "-I", "gzip -1", "-cf", fresh, "."], { timeoutMs: archiveMsMax });
    await rename(fresh, path);
  } catch (error) {
    throw new Fault("MissingProgram", "could not pack the agent for guests", {
      evidence: { nodePath, package: "tar gzip" },
      cause: error,
    });
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
  return path;
}

async function findAtomicLibrary(): Promise<string | undefined> {
  const listed = await tryCommand("ldconfig", ["-p"], { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } }).catch(() => undefined);
  const path = /libatomic\.so\.1 \(libc6,x86-64\) => (\S+)/.exec(listed?.stdout ?? "")?.[1];
  return path === undefined ? undefined : await realpath(path);
}

async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}
