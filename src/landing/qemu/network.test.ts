// How cards are wired to a user network: the source's address is kept, forwards lead to the first card, a seal holds.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { userCards } from "./network.ts";

const mac = "52:54:00:00:00:01";
const forwards = [{ hostPort: 2222, guestPort: 22 }];

describe("userCards", () => {
  it("lets QEMU choose where no address is known, and forwards to the first card only", () => {
    const cards = userCards(
      [
        { mac, guestName: "eth0" },
        { mac, guestName: "eth1" },
      ],
      { kind: "user", forwards },
    );
    assert.deepEqual(cards, ["user,hostfwd=tcp:127.0.0.1:2222-:22", "user"]);
  });

  it("takes the source's network on, so that a static address works as well as DHCP", () => {
    const [card] = userCards([{ mac, guestName: "eth0", address: "10.20.30.2/24" }], { kind: "user", forwards });
    const range = "net=10.20.30.0/24,host=10.20.30.1,dns=10.20.30.3,dhcpstart=10.20.30.2";
    assert.equal(card, `user,${range},hostfwd=tcp:127.0.0.1:2222-10.20.30.2:22`);
  });

  it("seals the guest in when that is wanted", () => {
    const [card] = userCards([{ mac, guestName: "eth0", address: "10.0.2.15" }], { kind: "user", forwards: [], isSealed: true });
    assert.equal(card, "user,restrict=on,net=10.0.2.0/24,host=10.0.2.1,dns=10.0.2.2,dhcpstart=10.0.2.15");
  });
});
