// The console set-up as questions: each answer is tried at once, and a failure shows its hop and offers to answer again or to go on.

import { cancel, isCancel, log as talk, password as askPassword, select, spinner, text, type CANCEL_SYMBOL } from "@clack/prompts";
import { readdir } from "node:fs/promises";
import { hostname } from "node:os";
import type { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { entryShapes, parseConsoleAnswers, wrongness, type ConsoleAnswers } from "./console-answers.ts";
import { hasFailed, sectionsOf, type ConsoleParts, type Section } from "./console-setup.ts";

/** Talk goes there, as everywhere; stdout is for data. */
const atStderr = { output: process.stderr };

type Draft = { -readonly [Key in keyof ConsoleAnswers]?: ConsoleAnswers[Key] };

export interface Asked {
  readonly answers: ConsoleAnswers;
  readonly checks: readonly NetworkCheck[];
  /** Typed, and kept in no file before it is known to be right. */
  readonly proxyPassword: string | undefined;
}

/** Asks everything. A person may always answer again, and is never held up by a check: what fails now can be repaired on the set-up page. */
export async function askAll(parts: ConsoleParts, before: Draft, tryProxy: TryProxy): Promise<Asked> {
  const draft: Draft = { ...before };
  const checks: NetworkCheck[] = [];
  let proxyPassword: string | undefined;
  const settle = async (section: Section["section"], ask: () => Promise<void>, run?: Section["run"]): Promise<void> => {
    for (;;) {
      await ask();
      const answers = parseConsoleAnswers(draft);
      const task = run ?? sectionsOf(answers, parts).find((each) => each.section === section)?.run;
      if (task === undefined) return;
      const found = await show(section, task);
      if (!hasFailed(found)) return void checks.push(...found);
      if ((await again()) === "on") return void checks.push(...found);
    }
  };
  await settle("name", async () => void (draft.name = await line("Name of this machine", entryShapes.name, draft.name ?? hostname())));
  await settle("network", async () => await askNetwork(draft));
  await settle("time", async () => {
    const typed = await line(
      "Time servers, separated by spaces; empty: leave as it is",
      entryShapes.hosts,
      draft.timeServers?.join(" ") ?? "",
      words,
    );
    if (words(typed).length > 0) draft.timeServers = words(typed);
    else delete draft.timeServers;
  });
  await settle(
    "proxy",
    async () => {
      proxyPassword = await askProxy(draft);
    },
    async () => (draft.proxy === undefined ? [] : await tryProxy(draft.proxy, draft.network?.dnsServers ?? [], proxyPassword)),
  );
  return { answers: parseConsoleAnswers(draft), checks, proxyPassword };
}

export type TryProxy = (
  proxy: NonNullable<ConsoleAnswers["proxy"]>,
  dnsServers: readonly string[],
  password: string | undefined,
) => Promise<readonly NetworkCheck[]>;

async function askNetwork(draft: Draft): Promise<void> {
  const devices = (await readdir("/sys/class/net")).filter((device) => device !== "lo");
  const choice = answered(
    await select({
      ...atStderr,
      message: "Network of this machine",
      options: [{ value: "", label: "leave it as it is" }, ...devices.map((device) => ({ value: device, label: device }))],
      initialValue: draft.network?.device ?? "",
    }),
  );
  if (choice === "") return void delete draft.network;
  const known = draft.network?.device === choice ? draft.network : undefined;
  const address = await line(
    "Address with prefix, 10.1.0.5/24; empty: by DHCP",
    entryShapes.interfaceAddress,
    known?.address ?? "",
    optional,
  );
  const gateway = address === "" ? "" : await line("Gateway; empty: none", entryShapes.address, known?.gateway ?? "", optional);
  const servers = await line(
    "Resolvers, separated by spaces; empty: those of DHCP",
    entryShapes.addresses,
    known?.dnsServers.join(" ") ?? "",
    words,
  );
  draft.network = {
    ...{ device: choice, dnsServers: [...words(servers)] },
    ...(address === "" ? {} : { address }),
    ...(gateway === "" ? {} : { gateway }),
  };
}

/** Answers the password that was typed. */
async function askProxy(draft: Draft): Promise<string | undefined> {
  const url = await line("Proxy for public names, http://host:port; empty: none", entryShapes.proxyUrl, draft.proxy?.url ?? "", optional);
  if (url === "") {
    delete draft.proxy;
    return undefined;
  }
  const userName = (await line("Its user name; empty: it asks for none", undefined, draft.proxy?.userName ?? "")).trim();
  const typed = userName === "" ? undefined : answered(await askPassword({ ...atStderr, message: "Its password" }));
  const tryName = await line(
    "A public name to try it with; empty: try the proxy alone",
    entryShapes.host,
    draft.proxy?.tryName ?? "",
    optional,
  );
  draft.proxy = { url, ...(userName === "" ? {} : { userName }), ...(tryName === "" ? {} : { tryName }) };
  return typed;
}

async function line(
  message: string,
  shape: z.ZodType | undefined,
  initialValue: string,
  toValue: (typed: string) => unknown = (typed) => typed,
): Promise<string> {
  const typed = await text({
    ...atStderr,
    message,
    initialValue,
    validate: (given = "") => {
      const value = toValue(given.trim());
      return shape === undefined || value === undefined ? undefined : wrongness(shape, value);
    },
  });
  return answered(typed).trim();
}

const optional = (typed: string): string | undefined => (typed === "" ? undefined : typed);
const words = (typed: string): string[] => typed.split(/[\s,]+/).filter((each) => each !== "");

async function show(section: string, task: Section["run"]): Promise<readonly NetworkCheck[]> {
  const turning = spinner(atStderr);
  turning.start(`trying: ${section}`);
  const checks = await task();
  turning.stop(hasFailed(checks) ? `${section}: something fails` : `${section}: done`);
  for (const { verdict, id, answer, repair } of checks) {
    if (verdict === "pass") talk.success(`${id}: ${answer}`, atStderr);
    else if (verdict === "skipped") talk.warn(`${id}: ${answer}${repair === undefined ? "" : `; ${repair}`}`, atStderr);
    else talk.error(`${id}: ${answer}\nwhat to do: ${repair ?? ""}`, atStderr);
  }
  return checks;
}

async function again(): Promise<"again" | "on"> {
  return answered(
    await select({
      ...atStderr,
      message: "How to go on?",
      options: [
        { value: "again", label: "answer or try again" },
        { value: "on", label: "go on; it can be repaired later" },
      ],
    }),
  ) === "on"
    ? "on"
    : "again";
}

function answered<T>(answer: T | typeof CANCEL_SYMBOL): T {
  if (!isCancel(answer)) return answer;
  cancel("ended; what was done stays, and the same command goes on", atStderr);
  throw new Fault("StateConflict", "the set-up was ended", { action: "run it again; it begins with what is there" });
}
