// Objects of version 1, as its program wrote them, stay readable, and points of version 2 can be built upon them.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseMachineId, parsePointId, parseVaultId } from "../contract/ids.ts";
import { blockBytes, granuleBytes } from "../disk/geometry.ts";
import { MemoryStore } from "../store/memory-store.ts";
import { assertContent, diskId, newPoint, openTestVault, sealFacts } from "./test-vault.ts";

const vaultId = parseVaultId("11111111-1111-4111-8111-111111111111");
const machineId = parseMachineId("22222222-2222-4222-8222-222222222222");
const first = parsePointId("33333333-3333-4333-8333-333333333333");
const second = parsePointId("44444444-4444-4444-8444-444444444444");
const key = Buffer.alloc(32, 7);
/** Key in the store → base64. */
const objects: Readonly<Record<string, string>> = {
  "packs/22222222-2222-4222-8222-222222222222/02694c93-d985-4ed6-ad10-c44dbaaf2d89":
    "/6rjtP4yocQS3O31lmL2DDSAoz7pTA9mf10BnUH0GTlm6uf1G/LCx7DkoLWyMSO4BPoPKWjtfch9mfzhQjRsJU8cITnhxWihISOoek/pMrnh5Yo3VqjeL8eg" +
    "a4WYb0VpZWkcps7liGzj92+9IR2cCJ1tKdllqJJeELFZFpNs1k4NxZzmDiF9iz6BqqVkduIlyns6Kp812XvwgkIWwdNYhLr7Yr+ws4rSe1IKUODIJhknf3V7" +
    "2uxsypsWIZcR+mmwugcZJ1AvM8BwbtT1aHZ3cVeS0a2lxd4SbgmDJ0D+tplpU9AvPZ0/a9pkvDachZdvci1FnB0m1Z5liRsW0GOtJlStrs+ETe+kRKHkcmmH" +
    "SLysa6I7wYjnHaV/PybNAzUwhc3cF+X6/f0w1jOu1Ho8kvL3Sr/lDnmGHDaQXJjrEL4ri07Fzd5mkPc6jSTwPnyGM5+eSUjR2hGCiAdwYTDJ7LntjFH5JBc8" +
    "j3swbfVxinVrv+FksgAAANEAAACkRjhqK8M0ADUTnDJa4teh5YsfgCbfc4CVEL07vV4jTgQAAAAAAAAAAAAAAAAAAAABV1RSUEFDSwA=",
  "packs/22222222-2222-4222-8222-222222222222/699cd2e8-c6c2-46df-8a7f-9b6801e2fef8":
    "k+XPt20dGiefgUc5KbWu98n59ubHUqsAm9nRVdIA7aB5NfuM7oOEqPDcmWVolj/FvqsoHEe4L5sbdjC5NctJzzsNjcBVOogk7iKOjsbkgxhmduBnoaLYsUz7" +
    "FP/N/x9pc63s/uwI7kL+6mGX0N2wGZ8AgSyDPe4s0g6FtaK90UQTPsNHnCKmDOaeDDss9FY8VB9rr5TynQY63dL/3/BMU/l/TRTOy0omeo7CcmZj0dz8K/VX" +
    "zrS0jqdVGdEaNuK4VuuUvT9v2x+cRHUY41QgWPm1E5PMTDuOWbTGOOj5Ed+OYwGua4jOjT3BhMtRev8IUDaqO/TdzuOnuW08hGZkIMcN6M3vArTwgZRxbSUQ" +
    "rgZyNrTch1QUNbI9PHC/BBBNWwAAAK0AAAB0SPdmCBgOzdYTkI3IuV/RiZUmNL8CD6nklOZJzbzvKYEAAAAAAAAAAAAAAAAAAAABV1RSUEFDSwA=",
  "points/22222222-2222-4222-8222-222222222222/33333333-3333-4333-8333-333333333333":
    "V1RSUE9JTgAAAQAAAAAAAP2ie544h7uiJETSa5HSu04S6wCzvhNVJRATGxT1ZLvq/ovrqMV8/AuUHkzTgLhQAbo/KKkySshCSb9A6+c3bSy0xh2c5ah5TB3n" +
    "BvsurS3Smi4jl38Zt6PTQVLzqRDW1ahonjvk775lARZd5818pEx8N0IAsdcnVZUyeilVlRqnPFuV+gKEeo8IDPIRrtCmoLPFk7Sj3AP93WjdZ3s5/6IHnTzH" +
    "2YkuykFMnwQu89tLUZowA3pnj2uBkbk0CwSQh0KnSVkphNRJdNZJMFfCpkRWjzaUf1aYmcy1E9leU5a7HcDWg+WYpxtR26ZLMAPpE2d3KDCT7RZ+IEQxGZPS" +
    "Kx6H4ib7+uZXtcrbtdM3LTjZvG/HVFe0XkwMEuAoP1fTuOpqosjxpWTitkf95hSn52IrmMo0GsazCS1/AbWJjB4eEJq0dg9ZjLDniWxclJ9qwTtgXoFO0T/u" +
    "rXR6KuYSGcrvfdioA2yAA9v6xgCMwRmA6UAR4dFY19cZzKUAgXvf81b8+4+UB5cQIliaJ9pD",
  "points/22222222-2222-4222-8222-222222222222/44444444-4444-4444-8444-444444444444":
    "V1RSUE9JTgAAAQAAAAAAAEPKo5EW9bRXgfyhpTwunPEVTPtT7xMT8OQUM3JM/DKZEZE9KRYdiJJ1y6fxvVzZPm0J67jGepe3jzUokz4d7mTFu3vkxEXYUNiI" +
    "HmW2empXq5abE9y+hj0Y0p7oCtpIpcdSFvioPS8fclV37l5d7mfjJHiZ1Tix9JWjIZMdMNbnteGTLOCYGDqEC8ycFKdcJ2Yni73QtzVP5xtK6hySV3fv5DKv" +
    "g47CblAwDqebORxbizJNcsWw6s6+cC6eVVBcUsM2pZpefqHHgCP7IM4GAsQjHkj+4R3XNrwA4ySuYT6znJU/3ekwGqrE4/UdJ+/TaOgCj8N0uU0Fgxbjb4wY" +
    "KDnOuHyDn1ujQVelWpMqRi/Ru0xUkJbOFuzHJAzbV146Bv5h05EWtY5yMWyRT/qU5hIt0wuXdIi3voBl2z/71Frae2n6NBpx5coGeQDWy3UUPhzKQFAN2QGm" +
    "NalXD/zLlZL5ghmhllGn/WUOBL6FNeMcykfUOWuubgRKZJthFV1j4N4v+Qty4OE7k4DX2VUn4gTtY+bBcPGDCAbf/xhSrAGvuyGMuaEM3g39rJVUZPJ/VABh" +
    "l5/rwEhY0MYXkL18+jxnFgHMxmMnfu8qfA==",
};

const block = (index: number): Buffer => Buffer.alloc(blockBytes, `version 1, block ${index}\n`);

describe("Vault of version 1", () => {
  it("is read, built upon, and removed with its machine", async () => {
    const store = new MemoryStore();
    for (const [name, text] of Object.entries(objects)) await store.put(name, Buffer.from(text, "base64"));
    await using vault = await openTestVault(store, { vaultId, key });
    const content = Buffer.concat([block(0), Buffer.alloc(blockBytes), block(2)]);
    await assertContent(vault, first, content);
    content.fill("patched\n", 2 * blockBytes + granuleBytes, 2 * blockBytes + 2 * granuleBytes);
    await assertContent(vault, second, content);
    const pointId = newPoint();
    const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
    {
      await using writer = await vault.beginPoint({ pointId, machineId, parentPointId: second, disks });
      const granule = Buffer.alloc(granuleBytes, "version 2");
      granule.copy(content, 2 * blockBytes);
      await writer.patchBlock(diskId, 2, [{ index: 0, bytes: granule }]);
      await writer.seal(sealFacts);
    }
    const report = await vault.collect({ orphanGraceMs: 0, liveShareMin: 1 });
    assert.equal(report.removedPackCount + report.rewrittenPackCount, 0);
    await assertContent(vault, pointId, content);
    await vault.removeMachine(machineId);
    assert.deepEqual(await Array.fromAsync(store.list("")), []);
  });
});
