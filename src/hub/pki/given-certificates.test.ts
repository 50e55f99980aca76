// Names with a certificate of the customer's own authority show it, all others the hub's; what does not fit together is refused at the start.

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { systemClock, type Clock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { createAuthority } from "../../connectivity/test-certificates.ts";
import { openDoor } from "../private-link/door.ts";
import { openAuthority, type Authority } from "./authority.ts";
import { withGivenCertificates } from "./given-certificates.ts";

const name = "account.blob.watari.test";

interface Scene extends AsyncDisposable {
  readonly own: Authority;
  readonly given: { readonly authorityFile: string; readonly files: readonly { certificateFile: string; keyFile: string }[] };
  readonly authorityPem: string;
  issue(names: readonly string[], days?: number): Promise<void>;
  write(file: string, text: string): Promise<void>;
}

async function openScene(): Promise<Scene> {
  const folder = await mkdtemp(join(tmpdir(), "watari-given-"));
  const customer = await createAuthority("customer");
  const write = async (file: string, text: string): Promise<void> => await writeFile(join(folder, file), text);
  const issue = async (names: readonly string[], days?: number): Promise<void> => {
    const { cert, key } = await customer.issue([...names], days);
    await write("leaf.pem", cert);
    await write("leaf.key", key);
  };
  await write("authority.pem", customer.caPem);
  await issue([name]);
  return {
    own: await openAuthority({ folder, clock: systemClock, random: systemRandom }),
    given: {
      authorityFile: join(folder, "authority.pem"),
      files: [{ certificateFile: join(folder, "leaf.pem"), keyFile: join(folder, "leaf.key") }],
    },
    authorityPem: customer.caPem,
    ...{ issue, write },
    [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true, force: true }),
  };
}

const use = async (scene: Scene, clock: Clock = systemClock): Promise<Authority> =>
  await withGivenCertificates(scene.own, { given: scene.given as never, clock, log: silentLog });
const issuerOf = async (authority: Authority, asked: string): Promise<string> =>
  new X509Certificate((await authority.serverCertificate(asked)).certificatePem).issuer;

test("a covered name shows the customer's certificate to a client that trusts the customer alone; another name shows the hub's", async () => {
  await using scene = await openScene();
  const authority = await use(scene);
  const other = "management.watari.test";
  await using door = await openDoor({
    ...{ address: "127.0.0.1", port: 0, authority, asksClients: true, log: silentLog },
    handlerOf: async () => (_request, response) => void response.end("x"),
  });
  const isTrusted = async (servername: string, ca: string): Promise<boolean> =>
    await new Promise((resolve) => {
      const socket = connect({ host: "127.0.0.1", port: door.port, servername, ca }, () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
  assert.deepEqual([await isTrusted(name, scene.authorityPem), await isTrusted(name, scene.own.caPem)], [true, false]);
  assert.deepEqual([await isTrusted(other, scene.authorityPem), await isTrusted(other, scene.own.caPem)], [false, true]);
  for (const each of [name, other]) assert.equal(await isTrusted(each, authority.trustPem), true, "what clients are given trusts both");
  assert.equal(authority.caPem, scene.own.caPem, "appliances are known by the hub's authority alone");
});

test("a replaced file is seen without a restart; one that has ended, or was damaged meanwhile, leaves names served", async () => {
  await using scene = await openScene();
  let addedMs = 0;
  const clock: Clock = {
    ...systemClock,
    nowMs: () => systemClock.nowMs() + addedMs,
    monotonicMs: () => systemClock.monotonicMs() + addedMs,
  };
  const authority = await use(scene, clock);
  const first = (await authority.serverCertificate(name)).certificatePem;
  await scene.issue([name, "more.watari.test"], 5);
  addedMs += 61_000;
  assert.notEqual((await authority.serverCertificate(name)).certificatePem, first);
  assert.match(await issuerOf(authority, "more.watari.test"), /customer/);
  await scene.write("leaf.pem", "damaged");
  addedMs += 61_000;
  assert.match(await issuerOf(authority, name), /customer/, "the one before stays");
  addedMs += 6 * 86_400_000;
  assert.match(await issuerOf(authority, name), /Watari hub/, "it has ended");
});

test("a key of another certificate, a certificate of another authority, and no certificate are refused by name", async () => {
  await using scene = await openScene();
  const stranger = await (await createAuthority("stranger")).issue([name]);
  await scene.write("leaf.key", stranger.key);
  await assert.rejects(use(scene), { code: "InputInvalid", message: /leaf\.key: the key is not that of the certificate/ });
  await scene.write("leaf.pem", stranger.cert);
  await assert.rejects(use(scene), { code: "InputInvalid", message: /leaf\.pem: the authority that was named did not sign it/ });
  await scene.write("leaf.pem", "nothing");
  await assert.rejects(use(scene), { code: "InputInvalid", message: /it is no certificate/ });
});
