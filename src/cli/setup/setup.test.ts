// Set-up's promises: nothing missing does nothing; no root changes nothing; services are held, also after a crash.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { packagesFor, setupUses } from "./package-lists.ts";
import { ensurePackages, findMissing, type PackageSystem } from "./packages.ts";
import { withServicesHeld } from "./service-guard.ts";

const list = [
  { name: "squid", proof: "/usr/sbin/squid", why: "is the proxy" },
  { name: "kmod", why: "loads modules" },
];

interface Machine extends PackageSystem {
  readonly calls: string[];
}

/** A machine with these files and packages; apt-get succeeds from its `aptFailures`-th call on. */
function machine(options: { files?: string[]; packages?: string[]; aptFailures?: number; more?: Partial<PackageSystem> }): Machine {
  const files = ["/usr/bin/apt-get", "/usr/bin/dpkg-query", ...(options.files ?? [])];
  const calls: string[] = [];
  let failuresLeft = options.aptFailures ?? 0;
  return {
    calls,
    isRoot: true,
    isTerminal: false,
    root: "/nonexistent",
    exists: (path) => files.includes(path),
    ask: async () => await Promise.resolve(false),
    run: async (program, args) => {
      calls.push([program, ...args].join(" "));
      if (program === "dpkg-query") {
        const stdout = (options.packages ?? []).map((name) => `${name} installed\n`).join("");
        return await Promise.resolve({ exitCode: 1, stdout, stderr: "" });
      }
      const isFailing = args[0] === "install" && failuresLeft-- > 0;
      return await Promise.resolve({ exitCode: isFailing ? 100 : 0, stdout: "", stderr: isFailing ? "E: no lists" : "" });
    },
    ...options.more,
  };
}

async function missingNames(options: Parameters<typeof machine>[0]): Promise<string[]> {
  return (await findMissing(list, machine(options))).map(({ name }) => name);
}

async function temporaryRoot(context: TestContext): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "watari-setup-"));
  context.after(async () => await rm(root, { recursive: true }));
  await mkdir(join(root, "usr/sbin"), { recursive: true });
  return root;
}

test("ensurePackages does nothing when nothing is missing", async () => {
  const system = machine({ files: ["/usr/sbin/squid"], packages: ["kmod"] });
  assert.deepEqual(await ensurePackages(list, { purpose: "the test", confirm: "announce", system }), []);
  assert.ok(system.calls.every((call) => call.startsWith("dpkg-query -W")));
});

test("findMissing believes a proof file first and asks the package database for the rest", async () => {
  assert.deepEqual(await missingNames({}), ["squid", "kmod"]);
  assert.deepEqual(await missingNames({ packages: ["squid"] }), ["squid", "kmod"]);
  assert.deepEqual(await missingNames({ packages: ["kmod"] }), ["squid"]);
  assert.deepEqual(await missingNames({ files: ["/usr/sbin/squid"] }), ["kmod"]);
});

test("ensurePackages installs only what is missing, updates the lists once when that fails, and says what it did", async (context) => {
  const root = await temporaryRoot(context);
  const system = machine({ packages: ["kmod"], aptFailures: 1, more: { root } });
  assert.deepEqual(await ensurePackages(list, { purpose: "the test", confirm: "announce", system }), ["squid"]);
  const apt = system.calls.filter((call) => call.startsWith("apt-get"));
  assert.deepEqual(
    apt.map((call) => call.split(" ")[1]),
    ["install", "update", "install"],
  );
  assert.match(apt[0] ?? "", /--no-install-recommends -o DPkg::Lock::Timeout=300 squid$/);
});

test("ensurePackages names the exact command when apt-get fails for good", async (context) => {
  const system = machine({ aptFailures: 2, more: { root: await temporaryRoot(context) } });
  await assert.rejects(ensurePackages(list, { purpose: "the test", confirm: "announce", system }), (error: unknown) => {
    assert.ok(error instanceof Fault && error.code === "MissingProgram");
    assert.equal(error.evidence["told"], "E: no lists");
    return error.action.includes("apt-get install --no-install-recommends squid kmod");
  });
});

test("ensurePackages changes nothing without root, without apt, or without consent, and gives the command", async () => {
  const cases: Partial<PackageSystem>[] = [{ isRoot: false }, { exists: () => false }, { isTerminal: true }, { isTerminal: false }];
  for (const more of cases) {
    const system = machine({ more });
    const confirm = "isTerminal" in more ? "ask" : "announce";
    await assert.rejects(ensurePackages(list, { purpose: "the test", confirm, system }), (error: unknown) => {
      assert.ok(error instanceof Fault && error.code === "MissingProgram");
      assert.equal(error.action.includes("sudo "), more.isRoot === false);
      return error.action.includes("apt-get install --no-install-recommends squid kmod");
    });
    assert.deepEqual(
      system.calls.filter((call) => call.startsWith("apt-get")),
      [],
    );
  }
});

test("withServicesHeld denies services and PostgreSQL's cluster meanwhile, and leaves nothing", async (context) => {
  const root = await temporaryRoot(context);
  const policy = join(root, "usr/sbin/policy-rc.d");
  await withServicesHeld(root, async () => {
    assert.equal((await tryCommand(policy, ["squid", "start"])).exitCode, 101);
    assert.match(
      await readFile(join(root, "etc/postgresql-common/createcluster.d/watari-setup.conf"), "utf8"),
      /create_main_cluster = false/,
    );
  });
  assert.deepEqual([existsSync(policy), existsSync(join(root, "etc/postgresql-common"))], [false, false]);
});

test("withServicesHeld leaves an operator's own policy as it is", async (context) => {
  const root = await temporaryRoot(context);
  const policy = join(root, "usr/sbin/policy-rc.d");
  await writeFile(policy, "#!/bin/sh\nexit 104\n", { mode: 0o755 });
  await withServicesHeld(root, async () => assert.equal((await tryCommand(policy, [])).exitCode, 104));
  assert.equal(await readFile(policy, "utf8"), "#!/bin/sh\nexit 104\n");
});

test("withServicesHeld holds no service once its process was killed: the policy allows and removes itself", async (context) => {
  const root = await temporaryRoot(context);
  const policy = join(root, "usr/sbin/policy-rc.d");
  const guard = JSON.stringify(join(import.meta.dirname, "service-guard.ts"));
  const script = `import { withServicesHeld } from ${guard}; await withServicesHeld(${JSON.stringify(root)}, () => {
    process.stdout.write("held"); return new Promise(() => setInterval(() => 0, 1000)); });`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  context.after(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  assert.equal((await tryCommand(policy, [])).exitCode, 101);
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal((await tryCommand(policy, [])).exitCode, 0);
  assert.equal(existsSync(policy), false);
});

test("packagesFor names each package once, and the test and the demo have the lab's too", () => {
  for (const use of setupUses) {
    const names = packagesFor(use).map(({ name }) => name);
    assert.deepEqual(names, [...new Set(names)]);
    assert.ok(names.includes("postgresql"), use);
    assert.equal(names.includes("squid"), use !== "move");
  }
});
