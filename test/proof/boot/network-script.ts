// How a proof's guest gives addresses to its cards: the words of each system, written into its tree by the builder.

import { cardsOf, type BootGuest } from "./guests.ts";

/** Shell; the guest's tree stands under /t. */
export function networkScript(guest: BootGuest): string {
  const cards = cardsOf(guest);
  switch (guest.network ?? "plain") {
    case "plain":
      return [interfacesFile(cards), ...(cards.some(isDynamic) ? [networkdFiles(cards), enable("systemd-networkd")] : [])].join("\n");
    case "netplan":
      return [interfacesFile([]), netplanFile(cards), mask("NetworkManager"), enable("systemd-networkd")].join("\n");
    case "manager":
      return [interfacesFile([]), ...cards.map(connectionFile)].join("\n");
  }
}

type Card = ReturnType<typeof cardsOf>[number];

const isDynamic = ({ kind }: Card): boolean => kind === "dhcp";
const mask = (name: string): string => `ln -sf /dev/null /t/etc/systemd/system/${name}.service`;
const enable = (name: string): string =>
  `ln -sf /lib/systemd/system/${name}.service /t/etc/systemd/system/multi-user.target.wants/${name}.service`;

function file(path: string, mode: string, lines: readonly string[]): string {
  return `mkdir -p $(dirname /t${path}); cat > /t${path} <<'END'\n${lines.join("\n")}\nEND\nchmod ${mode} /t${path}`;
}

function interfacesFile(cards: readonly Card[]): string {
  const fixed = cards.filter((card) => !isDynamic(card));
  const lines = fixed.flatMap(({ guestName, address }) => [`auto ${guestName}`, `iface ${guestName} inet static`, `  address ${address}`]);
  return file("/etc/network/interfaces", "644", ["auto lo", "iface lo inet loopback", ...lines]);
}

function networkdFiles(cards: readonly Card[]): string {
  return cards
    .filter(isDynamic)
    .map(({ guestName }) =>
      file(`/etc/systemd/network/20-${guestName}.network`, "644", ["[Match]", `Name=${guestName}`, "[Network]", "DHCP=ipv4"]),
    )
    .join("\n");
}

/** As an installer writes it: each card by its hardware address and its name. */
function netplanFile(cards: readonly Card[]): string {
  const lines = cards.flatMap(({ kind, mac, guestName, address }) => [
    `    ${guestName}:`,
    `      match: {macaddress: "${mac}"}`,
    `      set-name: ${guestName}`,
    kind === "dhcp" ? "      dhcp4: true" : `      addresses: [${address}]`,
  ]);
  return file("/etc/netplan/01-lan.yaml", "600", ["network:", "  version: 2", "  renderer: networkd", "  ethernets:", ...lines]);
}

function connectionFile({ kind, guestName, address }: Card): string {
  const method = kind === "dhcp" ? ["method=auto"] : ["method=manual", `address1=${address}`];
  const lines = ["[connection]", `id=${guestName}`, "type=ethernet", `interface-name=${guestName}`, "[ipv4]", ...method];
  return file(`/etc/NetworkManager/system-connections/${guestName}.nmconnection`, "600", lines);
}
