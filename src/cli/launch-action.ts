// Post-launch actions as words on the command line: "http:8080/health", "tcp:5432", "ssh", "serial:login:", "program:smoke"; "?" before one that need not pass.

import type { Command } from "commander";
import { Fault } from "../contract/errors.ts";

export type ActionWish = Readonly<Record<string, unknown>>;

export function withActionOption(command: Command): Command {
  return command.option(
    "--action <what>",
    'what the machine is asked once it runs, in this order; may be repeated: http:PORT/PATH, tcp:PORT, ssh[:PORT], serial:TEXT, program:NAME; "?" before it: it need not pass',
    collectAction,
    [],
  );
}

function collectAction(text: string, before: readonly ActionWish[]): readonly ActionWish[] {
  return [...before, parseAction(text)];
}

function parseAction(text: string): ActionWish {
  const [, mark = "", kind = "", rest = ""] = /^(\??)([a-z]+):?(.*)$/s.exec(text) ?? [];
  const common = mark === "?" ? { isRequired: false } : {};
  const [, port = "", path = ""] = /^(\d+)(\/.*)?$/s.exec(rest) ?? [];
  if (kind === "http" && port !== "") return { kind, port: Number(port), ...(path === "" ? {} : { path }), ...common };
  if (kind === "tcp" && port !== "" && path === "") return { kind, port: Number(port), ...common };
  if (kind === "ssh" && (rest === "" || (port !== "" && path === "")))
    return { kind, ...(port === "" ? {} : { port: Number(port) }), ...common };
  if (kind === "serial" && rest !== "") return { kind, text: rest, ...common };
  if (kind === "program" && rest !== "") return { kind: "script", program: rest, ...common };
  throw new Fault("InputInvalid", `could not read the action ${text}`, {
    action: "write http:PORT/PATH, tcp:PORT, ssh, ssh:PORT, serial:TEXT or program:NAME",
  });
}
