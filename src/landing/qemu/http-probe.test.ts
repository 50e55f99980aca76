// A probe waits for 200 and says at the end what it saw instead; addresses come from leases as they appear.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { leasedAddresses, probeHttp } from "./http-probe.ts";

async function withServer(answer: RequestListener, task: (port: number) => Promise<void>): Promise<void> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  await task(address.port).finally(() => server.close());
}

const quiet = { macs: [], path: "/", timeoutSeconds: 0.3 };

describe("probeHttp", () => {
  it("asks until the answer is 200", async () => {
    let asked = 0;
    await withServer(
      (_, response) => {
        asked += 1;
        response.writeHead(asked < 3 ? 503 : 200).end(`number ${asked}`);
      },
      async (port) => {
        const outcome = await probeHttp({ ...quiet, addresses: ["127.0.0.1"], port, timeoutSeconds: 10 }, systemClock);
        assert.equal(outcome.kind === "answered" ? outcome.body : "", "number 3");
      },
    );
  });

  it("says why it heard nothing", async () => {
    await withServer(
      (_, response) => response.writeHead(404).end(),
      async (port) => {
        const refused = await probeHttp({ ...quiet, addresses: [`127.0.0.1:${port}`], port: 1 }, systemClock);
        assert.match(refused.kind === "silent" ? refused.reason : "", /it answered 404/);
      },
    );
    const nobody = await probeHttp({ ...quiet, addresses: [], port: 1 }, systemClock);
    assert.match(nobody.kind === "silent" ? nobody.reason : "", /no address yet/);
  });

  it("ends at once when aborted", async () => {
    const asking = probeHttp({ ...quiet, addresses: [], port: 1, timeoutSeconds: 60 }, systemClock, AbortSignal.timeout(20));
    await assert.rejects(asking);
  });
});

describe("a probe of a port", () => {
  it("takes a greeting for SSH only, and any connection for TCP", async () => {
    for (const [greeting, isSsh] of [
      ["be welcome\r\nSSH-2.0-OpenSSH_9.2p1\r\n", true],
      ["220 mail.test ESMTP\r\n", false],
    ] as const) {
      const server = createTcpServer((socket) => socket.on("error", () => undefined).end(greeting)).listen(0, "127.0.0.1");
      await once(server, "listening");
      const address = server.address();
      assert.ok(typeof address === "object" && address !== null);
      const order = { ...quiet, addresses: ["127.0.0.1"], port: address.port };
      const heard = await probeHttp({ ...order, kind: "ssh" }, systemClock);
      assert.equal(heard.kind === "answered" ? heard.body : "", isSsh ? "SSH-2.0-OpenSSH_9.2p1" : "");
      assert.equal((await probeHttp({ ...order, kind: "tcp" }, systemClock)).kind, "answered");
      server.close();
    }
  });
});

describe("leasedAddresses", () => {
  it("finds the cards' addresses in a leases file that may not be there", async () => {
    const folder = mkdtempSync(join(tmpdir(), "leases-"));
    const path = join(folder, "leases");
    assert.deepEqual(await leasedAddresses(path, ["52:54:00:AA:00:01"]), []);
    writeFileSync(path, "1795 52:54:00:aa:00:01 10.0.0.5 web *\n1795 52:54:00:aa:00:02 10.0.0.6 * *\nbroken\n");
    assert.deepEqual(await leasedAddresses(path, ["52:54:00:AA:00:01"]), ["10.0.0.5"]);
    rmSync(folder, { recursive: true });
  });
});
