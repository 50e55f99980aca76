// `watari net`: plans a closed network from one file, and writes the plan in the forms that other programs read.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Option, type Command } from "commander";
import { parse } from "yaml";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { examplePlan } from "../connectivity/plan/example.ts";
import { planMatrix, type PlanCell, type PlanFinding } from "../connectivity/plan/matrix.ts";
import { parsePlan, planSchema, type PlanDocument, type PlanProfile } from "../connectivity/plan/plan-document.ts";
import { findFormat, formats, type Format } from "../connectivity/plan/renderings/formats.ts";
import type { Rendered, RenderedFile } from "../connectivity/plan/renderings/rendering.ts";
import { Fault } from "../contract/errors.ts";
import { checkPlan } from "./net-check.ts";
import { wantRole } from "./net-roles.ts";
import { formatTable, printAnswer, say } from "./output.ts";

const planBytesMax = 2 ** 20;
/** The plan was read and says that it cannot work. */
const exitWithFindings = 3;
const profiles: readonly PlanProfile[] = ["watari", "azure-public", "azure-usgov", "azure-china"];

export function registerNetCommand(program: Command): void {
  const noun = program
    .command("net")
    .description("the closed network: plan it from one file, prove it, write it for other programs")
    .addHelpText("after", helpText);
  noun
    .command("init")
    .description("print an example plan to begin with")
    .addOption(new Option("--profile <name>", "whose service names").choices(profiles).default("watari"))
    .action((options: { readonly profile: PlanProfile }) => void process.stdout.write(examplePlan(options.profile)));
  noun
    .command("schema")
    .description("print the JSON schema of a plan, for editors")
    .action(() => void process.stdout.write(`${JSON.stringify(planSchema(), undefined, 2)}\n`));
  noun
    .command("plan")
    .argument("<file>", "the plan, in YAML")
    .description("show for each role and endpoint by which way it goes, why, and what is wrong; exit code 3 when it cannot work")
    .addOption(profileOption())
    .option("--role <id>", "only this role: appliance, agent, operator, process-server/NAME")
    .option("--json", "answer with JSON on stdout")
    .action(async (file: string, options: PlanOptions) => await showPlan(file, options));
  noun
    .command("check")
    .argument("<file>", "the plan, in YAML")
    .description("try every way of one role from this machine, hop by hop; exit code 4 when one fails; changes nothing")
    .addOption(profileOption())
    .option("--role <id>", "which role this machine has", "appliance")
    .option("--ca <file>", "PEM of the authority of the private names; the system's authorities unless given")
    .option("--html <file>", "also write the result as a page that can be sent")
    .option("--json", "answer with JSON on stdout")
    .action(async (file: string, options: CheckOptions) => {
      const plan = await readPlan(file, options.profile);
      const caFile = options.ca === undefined ? {} : { caFile: options.ca };
      const htmlFile = options.html === undefined ? {} : { htmlFile: options.html };
      await checkPlan({ plan, roleId: options.role, ...caFile, ...htmlFile, asJson: options.json === true });
    });
  noun
    .command("render")
    .argument("<form>", formats.map(({ name }) => name).join(", "))
    .argument("<file>", "the plan, in YAML")
    .description("write the plan in the form of another program")
    .addOption(profileOption())
    .option("--role <id>", "for which role, where the form is one machine's", "appliance")
    .addOption(
      new Option("--dns <mode>", "DNS forms: answer the private names, or ask the resolver of the endpoints' zone")
        .choices(["records", "forward"])
        .default("records"),
    )
    .option("--out <folder>", "write files there instead of stdout")
    .option("--json", "answer with JSON on stdout")
    .action(async (form: string, file: string, options: RenderOptions) => await render(form, file, options));
}

const helpText = `
Begin:        watari net init > site.yaml
Look:         watari net plan site.yaml
Prove:        watari net check site.yaml --role appliance
Hand out:     watari net render firewall-md site.yaml
For Azure:    watari net init --profile azure-public
Forms:
${formats.map(({ name, summary }) => `  ${name.padEnd(14)}${summary}`).join("\n")}`;

function profileOption(): Option {
  return new Option("--profile <name>", "read the plan with these service names instead of its own").choices(profiles);
}

interface PlanOptions {
  readonly profile?: PlanProfile;
  readonly role?: string;
  readonly json?: boolean;
}

interface CheckOptions extends PlanOptions {
  readonly role: string;
  readonly ca?: string;
  readonly html?: string;
}

interface RenderOptions extends PlanOptions {
  readonly role: string;
  readonly dns: "records" | "forward";
  readonly out?: string;
}

async function readPlan(file: string, profile: PlanProfile | undefined): Promise<PlanDocument> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new Fault("InputInvalid", `could not read the plan ${file}`, {
      cause,
      action: "give a file that exists; `watari net init` prints one to begin with",
    });
  });
  if (text.length > planBytesMax) throw new Fault("InputInvalid", `the plan ${file} is longer than ${planBytesMax} bytes`);
  const document = parseYaml(text, file);
  if (profile === undefined || typeof document !== "object" || document === null) return parsePlan(document);
  const { domain, ...rest } = document as { readonly domain?: unknown };
  return parsePlan({ ...rest, profile, ...(profile === "watari" ? { domain } : {}) });
}

function parseYaml(text: string, file: string): unknown {
  try {
    return parse(text, { maxAliasCount: 100 });
  } catch (cause) {
    const message = cause instanceof Error ? cause.message.split("\n", 1)[0] : String(cause);
    throw new Fault("InputInvalid", `the plan ${file} is not YAML: ${message}`, { cause });
  }
}

async function showPlan(file: string, options: PlanOptions): Promise<void> {
  const matrix = planMatrix(await readPlan(file, options.profile));
  if (options.role !== undefined) wantRole(matrix, options.role);
  const cells = matrix.cells.filter(({ role }) => options.role === undefined || role.id === options.role);
  const findings = [...matrix.findings, ...cells.flatMap((cell) => cell.findings)];
  const errors = findings.filter(({ severity }) => severity === "error");
  const answer = {
    works: errors.length === 0,
    cells: cells.map(cellAnswer),
    findings: matrix.findings,
  };
  printAnswer({ asJson: options.json === true }, answer, () => planText(cells, findings));
  if (errors.length > 0) process.exitCode = exitWithFindings;
}

function cellAnswer({ role, endpoint, decision, way, resolution, because, findings }: PlanCell): unknown {
  const { id, name, protocol, port, why, need } = endpoint;
  return { role: role.id, zone: role.zone, endpoint: id, name, protocol, port, decision, way, resolution, because, why, need, findings };
}

function planText(cells: readonly PlanCell[], findings: readonly PlanFinding[]): string {
  const table = formatTable(
    ["ROLE", "TO", "PORT", "WAY", "NAME BY", "WHY", ""],
    cells.map(({ role, endpoint, way, resolution, findings: own }) => [
      role.id,
      endpoint.name.startsWith(".") ? `*${endpoint.name}` : endpoint.name,
      `${endpoint.port}/${endpoint.protocol}`,
      way,
      resolution,
      endpoint.need === "always" ? endpoint.why : `${endpoint.why} (${endpoint.need})`,
      own.some(({ severity }) => severity === "error") ? "✖" : own.length > 0 ? "!" : "",
    ]),
  );
  const unique = [...new Map(findings.map((finding) => [finding.text, finding])).values()].toSorted((one, other) =>
    one.severity < other.severity ? -1 : 1,
  );
  const told = unique.map(({ severity, code, text, action }) => `${severity === "error" ? "✖" : "!"} ${text}\n    ${code}: ${action}`);
  const errorCount = unique.filter(({ severity }) => severity === "error").length;
  const verdict = errorCount === 0 ? `the plan holds for ${cells.length} ways` : `the plan cannot work: ${errorCount} errors`;
  return [table, "", ...told, ...(told.length > 0 ? [""] : []), verdict].join("\n");
}

async function render(form: string, file: string, options: RenderOptions): Promise<void> {
  const format = findFormat(form);
  const plan = await readPlan(file, options.profile);
  const matrix = planMatrix(plan);
  const rendered = format.render({ plan, matrix, role: wantRole(matrix, options.role), dnsMode: options.dns });
  for (const { entry, reason } of rendered.omitted) say(`left out: ${entry}: ${reason}`);
  if (rendered.files.length === 0)
    throw new Fault("InputInvalid", `nothing can be written as ${form}: ${rendered.omitted[0]?.reason ?? ""}`);
  if (options.out === undefined) {
    printRendered(format, rendered, options.json === true);
    return;
  }
  const paths: string[] = [];
  for (const { name, bytes } of rendered.files) {
    const path = join(options.out, name);
    await writeFileAtomic(path, bytes);
    paths.push(path);
  }
  printAnswer({ asJson: options.json === true }, { form, files: paths, omitted: rendered.omitted }, () => paths.join("\n"));
}

function printRendered(format: Format, rendered: Rendered, asJson: boolean): void {
  const files = rendered.files.map((each) => ({ name: each.name, text: textOf(each) }));
  const toText = (): string =>
    files.length === 1 ? (files[0]?.text ?? "") : files.map(({ name, text }) => `# ---- ${name}\n${text}`).join("\n");
  if (asJson) printAnswer({ asJson }, { form: format.name, files, omitted: rendered.omitted }, toText);
  else process.stdout.write(toText());
}

/** As people read it; a file for Windows is written in its own encoding by --out alone. */
function textOf({ bytes }: RenderedFile): string {
  const isUtf16 = bytes[0] === 0xff && bytes[1] === 0xfe;
  return new TextDecoder(isUtf16 ? "utf-16le" : "utf-8").decode(bytes);
}
