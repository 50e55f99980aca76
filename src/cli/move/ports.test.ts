// Ports and addresses that disturb nothing.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { describe, it } from "node:test";
import { Fault } from "../../contract/errors.ts";
import { addressFacing, chooseHubOctet, choosePort, isFree, isOwnAddress } from "./ports.ts";

async function listen(): Promise<{ readonly port: number; close(): void }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return { port: address.port, close: () => void server.close() };
}

describe("ports of a move", () => {
  it("takes the usual port where it is free, and leaves alone what something listens on", async () => {
    const taken = await listen();
    try {
      assert.equal(await isFree("127.0.0.1", taken.port), false);
      const chosen = await choosePort("127.0.0.1", { port: taken.port, from: taken.port });
      assert.notEqual(chosen, taken.port);
      assert.equal(await choosePort("127.0.0.1", { port: chosen, from: chosen }), chosen);
      assert.notEqual(await choosePort("127.0.0.1", { port: chosen, from: chosen, taken: [chosen] }), chosen);
    } finally {
      taken.close();
    }
  });

  it("gives each folder a loopback range of its own", () => {
    const first = chooseHubOctet("/var/lib/watari/move/web1-22", []);
    assert.equal(chooseHubOctet("/var/lib/watari/move/web1-22", []), first);
    assert.notEqual(chooseHubOctet("/var/lib/watari/move/web1-22", [first]), first);
    const all = Array.from({ length: 256 }, (_, octet) => octet);
    assert.throws(
      () => chooseHubOctet("/x", all),
      (error: unknown) => error instanceof Fault && error.code === "LimitReached",
    );
  });

  it("finds the address that faces the source, and says when nothing answers there", async () => {
    const server = await listen();
    assert.equal(await addressFacing("127.0.0.1", server.port), "127.0.0.1");
    server.close();
    await assert.rejects(
      addressFacing("127.0.0.1", server.port),
      (error: unknown) => error instanceof Fault && error.code === "GuestUnreachable" && error.evidence["port"] === server.port,
    );
  });

  it("knows its own addresses from those of others", () => {
    assert.deepEqual(["127.0.0.1", "::1", "192.0.2.1"].map(isOwnAddress), [true, true, false]);
  });
});
