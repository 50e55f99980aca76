// Promises of the questions at the console: the real program at a pseudo terminal refuses a wrong answer at once, tries each, and holds nobody up.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { systemClock } from "../../base/clock.ts";
import { tryCommand } from "../../base/run-command.ts";
import { createStateFolder, loadConfig, parseApplianceConfig, saveConfig } from "../config/config.ts";

const program = join(import.meta.dirname, "../../main.ts");
const isIsolated =
  existsSync("/usr/bin/script") &&
  process.getuid?.() === 0 &&
  (await tryCommand("unshare", ["-m", "true"]).catch(() => undefined))?.exitCode === 0;
const [enter, down, rubOut] = ["\r", "\u001b[B", "\u007f"];

/** What a person sees and types. The machine's own services are out of sight, so that its name stays what it is. */
class Terminal implements AsyncDisposable {
  readonly #child;
  readonly ended: Promise<number | null>;
  readonly #bytes: Buffer[] = [];
  /** Up to where what was shown has been looked at. */
  #seen = 0;

  constructor(command: readonly string[]) {
    const line = `stty cols 200 rows 50; ${command.map((part) => `'${part}'`).join(" ")}`;
    this.#child = spawn(
      "unshare",
      ["-m", "--propagation", "private", "sh", "-c", `mount -t tmpfs tmpfs /run && exec script -qfec "$0" /dev/null`, line],
      {
        stdio: ["pipe", "pipe", "inherit"],
        env: { ...process.env, TERM: "xterm" },
      },
    );
    this.#child.stdout.on("data", (bytes: Buffer) => this.#bytes.push(bytes));
    this.ended = new Promise((resolve) => void this.#child.once("exit", resolve));
  }

  get all(): string {
    return stripVTControlCharacters(Buffer.concat(this.#bytes).toString("utf8"));
  }

  /** Waits until it is shown, behind what was waited for before. */
  async sees(text: string): Promise<void> {
    const endMs = systemClock.monotonicMs() + 20_000;
    for (;;) {
      const at = this.all.indexOf(text, this.#seen);
      if (at >= 0) return void (this.#seen = at + text.length);
      assert.ok(systemClock.monotonicMs() < endMs && this.#child.exitCode === null, `"${text}" is not shown: ${this.all.slice(-2000)}`);
      await systemClock.sleep(20);
    }
  }

  types(...keys: readonly string[]): void {
    this.#child.stdin.write(keys.join(""));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.ended;
  }
}

/** Asks for ann's password. */
async function startProxy(): Promise<{ readonly url: string } & AsyncDisposable> {
  const right = `Basic ${Buffer.from("ann:pr0xy-word").toString("base64")}`;
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (bytes) => {
      const isKnown = bytes.toString("latin1").includes(right);
      socket.end(
        isKnown
          ? "HTTP/1.1 403 Forbidden\r\n\r\n"
          : "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n",
      );
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => await new Promise<void>((resolve) => void server.close(() => resolve())),
  };
}

test(
  "a wrong answer is refused at once, what fails is told with its repair and can be answered again or left, and a password is not shown",
  { skip: isIsolated ? false : "needs root, namespaces and script(1)" },
  async () => {
    const state = await mkdtemp(join(tmpdir(), "watari-questions-"));
    try {
      await createStateFolder(state);
      await saveConfig(state, parseApplianceConfig({ listenAddresses: ["127.0.0.1"] }));
      await using proxy = await startProxy();
      const args = ["appliance", "setup", "--state", state, "--no-start"];
      await using terminal = new Terminal([process.execPath, "--disable-warning=ExperimentalWarning", program, ...args]);

      await terminal.sees("Name of this machine");
      terminal.types(rubOut.repeat(64), "site osaka", enter);
      await terminal.sees("letters, digits and hyphens");
      terminal.types(rubOut.repeat(64), "site-osaka", enter);
      await terminal.sees("what to do: as root run: hostnamectl set-hostname site-osaka");
      await terminal.sees("How to go on?");
      terminal.types(enter); // Again, with the same answer.
      await terminal.sees("Name of this machine");
      terminal.types(enter);
      await terminal.sees("How to go on?");
      terminal.types(down, enter);

      await terminal.sees("Network of this machine");
      terminal.types(enter);
      await terminal.sees("Time servers");
      terminal.types("a,-b", enter);
      await terminal.sees("not a name or an address");
      terminal.types(rubOut.repeat(8), enter);

      await terminal.sees("Proxy for public names");
      terminal.types("ftp://x", enter);
      await terminal.sees("Invalid URL");
      terminal.types(rubOut.repeat(16), proxy.url, enter);
      await terminal.sees("Its user name");
      terminal.types(enter);
      await terminal.sees("A public name");
      terminal.types(enter);
      await terminal.sees("proxy: something fails");
      await terminal.sees("what to do:");
      await terminal.sees("How to go on?");
      terminal.types(enter);
      await terminal.sees("Proxy for public names");
      terminal.types(enter);
      await terminal.sees("Its user name");
      terminal.types("ann", enter);
      await terminal.sees("Its password");
      terminal.types("pr0xy-word", enter);
      await terminal.sees("A public name");
      terminal.types(enter);
      await terminal.sees("proxy: done");
      assert.equal(await terminal.ended, 0, terminal.all.slice(-2000));

      assert.ok(!terminal.all.includes("pr0xy-word"), "a password is not shown");
      const { name, proxyUrl, proxyCredentialsFile = "", listenAddresses } = await loadConfig(state);
      assert.deepEqual([name, proxyUrl, listenAddresses], ["site-osaka", proxy.url, ["127.0.0.1"]]);
      assert.deepEqual(
        [await readFile(proxyCredentialsFile, "utf8"), (await stat(proxyCredentialsFile)).mode & 0o777],
        ["ann:pr0xy-word\n", 0o600],
      );
    } finally {
      await rm(state, { recursive: true, force: true });
    }
  },
);
