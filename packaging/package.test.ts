// The promises of the packages: the same bytes twice, units that systemd takes, a program that runs from them, nothing of a checkout in it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it, type TestContext } from "node:test";
import { Agent, request } from "undici";
import { runCommand, tryCommand } from "../src/base/run-command.ts";
import { makePackage, programNames, type MadePackage, type ProgramName } from "./programs.ts";

let folder = "";
before(async () => void (folder = await mkdtemp(join(tmpdir(), "watari-package-test-"))));
after(async () => await rm(folder, { recursive: true, force: true }));

async function make(name: ProgramName, place: string, nodePath = process.execPath): Promise<MadePackage> {
  const work = join(folder, name, place);
  await mkdir(work, { recursive: true });
  return await makePackage(name, { version: "1.2.3~test", epochSeconds: 1_800_000_000, work, folder: work, compression: "none", nodePath });
}

async function hasProgram(t: TestContext, program: string): Promise<boolean> {
  const { exitCode } = await tryCommand("sh", ["-c", `command -v ${program}`]);
  if (exitCode !== 0) t.skip(`${program} is not installed`);
  return exitCode === 0;
}

for (const name of programNames)
  describe(`the package of the ${name}`, () => {
    let made: MadePackage;
    before(async () => void (made = await make(name, "a")));

    it("is the same bytes when it is made again", async (t) => {
      if (!(await hasProgram(t, "dpkg-deb"))) return;
      const again = await make(name, "b");
      assert.equal(again.sha256, made.sha256);
      await rm(join(folder, name, "b"), { recursive: true });
    });

    it("has a unit that systemd takes without a word, and that gives little away", async (t) => {
      if (!(await hasProgram(t, "systemd-analyze"))) return;
      const unit = `watari-${name}.service`;
      const text = await readFile(join(made.tree, "usr/lib/systemd/system", unit), "utf8");
      const path = join(folder, unit);
      await writeFile(path, text.replaceAll("/usr/lib/watari-", `${made.tree}/usr/lib/watari-`));
      const verified = await tryCommand("systemd-analyze", ["verify", "--man=no", path]);
      assert.deepEqual({ exitCode: verified.exitCode, said: verified.stderr }, { exitCode: 0, said: "" });
      const { stdout } = await runCommand("systemd-analyze", ["security", "--offline=true", "--no-pager", path]);
      const exposure = Number(/exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1]);
      t.diagnostic(`exposure ${exposure}`);
      assert.ok(exposure <= exposureMax[name], `exposure ${exposure}`);
    });

    it("has scripts that a shell can read, and a user for systemd-sysusers", async () => {
      for (const script of ["postinst", "prerm", "postrm"]) await runCommand("sh", ["-n", join(made.tree, "DEBIAN", script)]);
      const root = join(folder, name, "root");
      await mkdir(join(root, "etc"), { recursive: true });
      await runCommand("systemd-sysusers", [`--root=${root}`, join(made.tree, "usr/lib/sysusers.d", `watari-${name}.conf`)]);
      assert.match(await readFile(join(root, "etc/passwd"), "utf8"), new RegExp(`^watari-${name}:`, "m"));
    });

    it("runs the program, without the nouns that need a checkout", async () => {
      const home = join(made.tree, "usr/lib", `watari-${name}`);
      const watari = [join(home, "main.mjs")];
      const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
      const help = await runCommand(join(home, "bin/node"), [...watari, "--help"], { env });
      assert.match(help.stdout, /\bhub\b/);
      assert.doesNotMatch(help.stdout, /\b(demo|lab|move)\b/);
      const verb = name === "hub" ? ["hub", "run", "--config", join(folder, "none.yaml")] : ["appliance", "status", "--state", folder];
      const refused = await tryCommand(join(home, "bin/node"), [...watari, ...verb], { env });
      assert.ok(refused.exitCode >= 2 && refused.exitCode <= 6, refused.stderr);
      for (const child of ["http-probe-child.mjs", "block-pool-child.mjs", "read-pool-child.mjs", "agent.mjs"])
        await access(join(home, child));
    });

    it("serves the set-up page, when it is the appliance's", async (t) => {
      if (name !== "appliance") return t.skip("the hub has none");
      const node = join(made.tree, "usr/lib/watari-appliance/bin/node");
      const watari = [join(made.tree, "usr/lib/watari-appliance/main.mjs"), "appliance"];
      const state = ["--state", join(folder, "page")];
      await runCommand(node, [
        ...watari,
        "init",
        ...state,
        "--listen",
        "127.0.0.1",
        ...["control", "data", "setup"].flatMap((each) => [`--${each}-port`, "0"]),
      ]);
      const child = spawn(node, [...watari, "run", ...state], {
        stdio: ["ignore", "ignore", "pipe"],
        env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
      });
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      try {
        let url: string | undefined;
        for await (const line of createInterface(child.stderr)) if ((url = /^set-up page: (\S+)$/.exec(line)?.[1]) !== undefined) break;
        const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
        const page = await (await request(url ?? "", { dispatcher })).body.text();
        const script = await request(new URL(/src="(\/main-\w+\.js)"/.exec(page)?.[1] ?? "", url), { dispatcher });
        assert.equal(script.statusCode, 200);
        assert.ok((await script.body.text()).length > 100_000);
        await dispatcher.destroy();
      } finally {
        child.kill("SIGTERM");
        await ended;
      }
    });

    it("passes lintian", async (t) => {
      if (!(await hasProgram(t, "lintian"))) return;
      // Half a minute goes into Node's own binary, of which nothing is ours.
      const nodePath = join(folder, "node");
      await writeFile(nodePath, "#!/bin/sh\n", { mode: 0o755 });
      const { path } = await make(name, "lint", nodePath);
      const { stdout } = await tryCommand("lintian", ["--allow-root", "--fail-on", "none", "--suppress-tags", foreignTags, path]);
      assert.deepEqual(
        stdout.split("\n").filter((line) => /^[EW]: /.test(line)),
        [],
      );
    });
  });

/** An uncompressed archive is for tests alone; overrides of tags that the real Node would get. */
const foreignTags = "uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball,mismatched-override,unused-override";

/** As systemd counts it, from 0 to 10. The hub's CAP_SYS_ADMIN and devices are for landing machines. */
const exposureMax: Readonly<Record<ProgramName, number>> = { hub: 2.6, appliance: 1.8 };
