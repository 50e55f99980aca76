// Promises of an image's first boot: an OVF environment is read as hypervisors write it, and nothing wrong becomes a setting.

import assert from "node:assert/strict";
import { test } from "node:test";
import { changesFor } from "./machine-changes.ts";
import { noAnswers, parseOvfEnvironment, toConsoleAnswers } from "./ovf-answers.ts";

const environment = (entries: Readonly<Record<string, string>>): string => `<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" xmlns:ve="http://www.vmware.com/schema/ovfenv" oe:id="" ve:vCenterId="vm-1">
  <PlatformSection><Kind>VMware ESXi</Kind><Version>8.0.0</Version></PlatformSection>
  <PropertySection>
${Object.entries(entries)
  .map(([key, value]) => `    <Property oe:key="${key}" oe:value="${value}"/>`)
  .join("\n")}
  </PropertySection>
</Environment>`;

test("properties become answers of the set-up", () => {
  const answers = parseOvfEnvironment(
    environment({
      ...{ name: "site-a", address: "10.10.0.10/24", gateway: "10.10.0.1", dns: "10.10.0.53, 10.10.0.54" },
      ...{ proxy: "http://10.10.0.1:3128", ntp: "ntp.corp.example", "somebody.else": "x" },
    }),
  );
  assert.deepEqual(toConsoleAnswers(answers, "ens192"), {
    ...{ name: "site-a", timeServers: ["ntp.corp.example"], proxy: { url: "http://10.10.0.1:3128" }, setupPort: 44_315 },
    network: { device: "ens192", address: "10.10.0.10/24", gateway: "10.10.0.1", dnsServers: ["10.10.0.53", "10.10.0.54"] },
  });
});

test("what was left empty was not given: DHCP, and set-up asks for the rest", () => {
  const answers = parseOvfEnvironment(environment({ name: "", address: "", gateway: "", dns: "", proxy: "" }));
  assert.deepEqual(answers, noAnswers);
  const [, network] = changesFor(toConsoleAnswers(answers, "eth0"));
  assert.ok(network?.kind === "file" && /Name=eth0\n\n\[Network\]\nDHCP=yes/.test(network.text), JSON.stringify(network));
  assert.deepEqual(parseOvfEnvironment(environment({})), answers);
});

test("values that are no addresses, names or URLs are refused: nothing can be smuggled into a settings file", () => {
  for (const [key, value] of [
    ["address", "10.10.0.10"],
    ["address", "10.10.0.10/33"],
    ["address", "10.10.0.10/24&#10;[Route]"],
    ["gateway", "10.10.0.1&#10;DNS=198.51.100.1"],
    ["dns", "10.10.0.53 nameserver"],
    ["name", "a b"],
    ["name", "x&#10;y"],
    ["ntp", "-o"],
    ["proxy", "ftp://10.10.0.1"],
  ] as const)
    assert.throws(() => parseOvfEnvironment(environment({ [key]: value })), { code: "InputInvalid" }, `${key} ${value}`);
  for (const text of ["", "<a>", "<a/>", "{}", "<Environment>"])
    assert.throws(() => parseOvfEnvironment(text), { code: "InputInvalid" }, text);
});
