// What breaks a closed network, one case each: how it is broken, what the check must find, and the repair that it prints, carried out.

import { setPrivateLine, setProxy, setSiteNames, leakPrivateName } from "../../../lab/cut-offs.ts";
import { internet, line } from "../../../lab/addresses.ts";
import type { FaultCode } from "../../../src/contract/errors.ts";
import type { PlanInput } from "../../../src/connectivity/plan/plan-document.ts";
import { createAuthority } from "../../../src/connectivity/test-certificates.ts";
import type { ProofSite } from "./site.ts";

interface Broken {
  /** The plan that the check is given while it is broken; the right one unless told. */
  readonly plan?: PlanInput;
  /** What comes before the command: faketime. */
  readonly prefixed?: readonly string[];
  /** Does what the repair says. */
  readonly repair: () => Promise<void>;
  /** Takes away, after the check, what was no fault of its own. */
  readonly cleanUp?: () => Promise<void>;
  /** The plan after the repair, when the repair is in the plan. */
  readonly repairedPlan?: PlanInput;
}

export interface NetworkCase {
  readonly name: string;
  /** What the first failing hop must tell. */
  readonly hop: string;
  readonly fault: FaultCode;
  /** Words that the printed repair must hold. */
  readonly repairSays: RegExp;
  /** "site": the check by the hub's order; a plan's, from the appliance's zone, unless told. */
  readonly by?: "site";
  readonly breakIt: (site: ProofSite) => Promise<Broken>;
}

const nothing = async (): Promise<void> => await Promise.resolve();
const impostorAddress = "10.200.0.49";
const prefixOf = (site: ProofSite): { readonly prefix: string } => ({ prefix: site.trial.facts.prefix });

export const networkCases: readonly NetworkCase[] = [
  {
    ...{ name: "a proxy is needed, and the plan names none", hop: "dns", fault: "NameUnresolved", repairSays: /name the proxy/ },
    breakIt: async (site) => {
      const { onprem, landing } = site.plan.zones;
      const { proxy: _proxy, ...without } = { ...onprem, ranges: onprem?.ranges ?? [] };
      const plan = { ...site.plan, zones: { onprem: { ...without, internet: true }, ...(landing === undefined ? {} : { landing }) } };
      return await Promise.resolve({ plan, repair: nothing, repairedPlan: site.plan });
    },
  },
  {
    ...{ name: "the proxy is down", hop: "proxy", fault: "ProxyUnreachable", repairSays: /proxy's address and port/ },
    breakIt: async (site) => {
      await setProxy("down", prefixOf(site));
      return { repair: async () => await setProxy("up", prefixOf(site)) };
    },
  },
  {
    ...{ name: "the proxy asks for a password", hop: "proxy", fault: "ProxyAuthRequired", repairSays: /user and password/ },
    breakIt: async (site) => {
      const { proxy } = site.trial.facts;
      const url = proxy.withPasswordUrl;
      const password = await site.passwordFile();
      const asking = { ...site.plan, proxies: { site: { url, authentication: "basic" as const } } };
      const answering = { ...site.plan, proxies: { site: { url, authentication: "basic" as const, credentialsFile: password } } };
      return { plan: asking, repair: nothing, repairedPlan: answering };
    },
  },
  {
    ...{ name: "the proxy does not allow a name", hop: "proxy", fault: "ProxyRefused", repairSays: /allow the target/ },
    breakIt: async (site) => {
      const plan = { ...site.plan, publicNames: [{ name: "elsewhere.example.com", why: "not in the proxy's allow list" }] };
      return await Promise.resolve({ plan, repair: nothing, repairedPlan: site.plan });
    },
  },
  {
    ...{ name: "the proxy's side opens TLS", hop: "tls", fault: "TlsAuthorityUnknown", repairSays: /exempt the name/ },
    breakIt: async (site) => {
      const { domain } = site.trial.facts;
      const names = ["management", "login", "download"].map((label) => `${label}.${domain}`);
      const leaf = await (await createAuthority("inspection")).issue(names);
      const endImpostor = await site.impostor("dmz", leaf, `${internet.dmz}:8443`);
      await site.allowInspector(8443);
      const open = await site.filter(
        "dmz",
        `chain output { type nat hook output priority -100; ip daddr ${internet.hub} tcp dport 443 dnat ip to ${internet.dmz}:8443; }`,
      );
      return {
        repair: async () => {
          await open();
          await endImpostor();
        },
      };
    },
  },
  {
    ...{ name: "a private name leaks to its public address", hop: "dns", fault: "PrivateNamePublic", repairSays: /getent ahosts/ },
    breakIt: async (site) => {
      await leakPrivateName(site.names.vault, prefixOf(site));
      return { repair: async () => await setSiteNames({}, prefixOf(site)) };
    },
  },
  {
    ...{ name: "an A record is wrong", hop: "dns", fault: "NameAnswersDiffer", repairSays: /answer .* with 10\.200\.0\./ },
    breakIt: async (site) => {
      await setSiteNames({ [site.names.blob]: "10.200.0.77" }, prefixOf(site));
      return { repair: async () => await setSiteNames({}, prefixOf(site)) };
    },
  },
  {
    ...{ name: "a hosts line is stale", hop: "dns", fault: "NameAnswersDiffer", repairSays: /make \/etc\/hosts answer/ },
    breakIt: async (site) => ({ repair: await site.hostsLine(`10.200.0.78 ${site.names.vault}`) }),
  },
  {
    ...{ name: "the private line is cut", hop: "dns", fault: "NameUnresolved", repairSays: /forward the zone/ },
    breakIt: async (site) => {
      await setPrivateLine("down", prefixOf(site));
      return { repair: async () => await setPrivateLine("up", prefixOf(site)) };
    },
  },
  {
    ...{ name: "a firewall lets one direction pass only", hop: "tcp", fault: "ConnectionFailed", repairSays: /both directions/ },
    breakIt: async (site) => ({
      repair: await site.filter(
        "landing",
        `chain output { type filter hook output priority -10; ip saddr ${site.names.vaultAddress} tcp sport 443 drop; }`,
      ),
    }),
  },
  {
    ...{ name: "the line loses large packets without a word", hop: "tls", fault: "PacketsLost", repairSays: /MSS/ },
    breakIt: async (site) => ({
      repair: await site.filter(
        "landing",
        `chain input { type filter hook prerouting priority -300; iifname "l-line" meta length > 1400 drop; }`,
      ),
    }),
  },
  {
    ...{ name: "a certificate is expired", hop: "tls", fault: "TlsRefused", repairSays: /renew the certificate|dates in the evidence/ },
    breakIt: async (site) => {
      const leaf = await (await createAuthority("old")).issue([site.names.blob], -1);
      await site.setAddress("landing", impostorAddress, "add");
      const endImpostor = await site.impostor("landing", leaf, `${impostorAddress}:443`);
      const blob = site.addressOf(site.names.blob);
      const open = await site.filter(
        "landing",
        `chain pre { type nat hook prerouting priority -100; ip daddr ${blob} tcp dport 443 dnat ip to ${impostorAddress}; }`,
      );
      return {
        repair: async () => {
          await open();
          await endImpostor();
          await site.setAddress("landing", impostorAddress, "del");
        },
      };
    },
  },
  {
    ...{ name: "the clock is an hour ahead", hop: "clock", fault: "ClockSkewed", repairSays: /time server/ },
    breakIt: async () => await Promise.resolve({ prefixed: ["faketime", "-f", "+1h"], repair: nothing }),
  },
  {
    ...{ name: "the endpoint is not approved", hop: "tcp", fault: "ConnectionFailed", repairSays: /connection is approved/ },
    breakIt: async (site) => {
      await site.decideConnection("Rejected");
      return { repair: async () => await site.decideConnection("Approved") };
    },
  },
  {
    ...{ name: "the private zone is not linked", hop: "dns", fault: "NameUnresolved", repairSays: /link the private zone/ },
    breakIt: async (site) => {
      await site.linkZone("unlinked");
      return { repair: async () => await site.linkZone("linked") };
    },
  },
  {
    ...{ name: "a proxy auto-configuration sends private names to the proxy", hop: "pac", fault: "PacAnswerWrong" },
    repairSays: /watari net render pac/,
    breakIt: async (site) => {
      const { host } = new URL(site.trial.facts.proxy.url);
      const plan = await site.planWithPac(`function FindProxyForURL(url, host) { return "PROXY ${host}"; }\n`);
      return { plan, repair: async () => void (await site.planWithPac(undefined)), repairedPlan: plan };
    },
  },
  {
    ...{ name: "the line translates addresses, and the filter behind it does not know", hop: "tcp", fault: "ConnectionFailed" },
    repairSays: /accept TCP 443 from the address that it translates to/,
    breakIt: async (site) => {
      const plan = { ...site.plan, lines: [{ from: "onprem", to: "landing", nat: true }] };
      const translated = await site.filter(
        "onprem",
        `chain out { type nat hook postrouting priority 100; oifname "line0" tcp dport 443 masquerade; }`,
      );
      const closed = await site.filter(
        "landing",
        `chain input { type filter hook input priority -10; iifname "l-line" ip saddr ${line.onprem} tcp dport 443 drop; }`,
      );
      return { plan, repair: closed, repairedPlan: plan, cleanUp: translated };
    },
  },
  {
    ...{ name: "the vault has no role on its storage account", hop: "rights", fault: "StorageRoleMissing", by: "site" },
    repairSays: /watari vault create again/,
    breakIt: async (site) => {
      await site.removeRole();
      return { repair: async () => await site.giveRole() };
    },
  },
];
