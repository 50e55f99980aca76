// Where and as whom the command line speaks to a hub: one profile file, readable by its owner only.

import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { Fault } from "../contract/errors.ts";

/** What a sign-in has to know of a hub. */
export const hubFactsShape = z.object({
  managementUrl: z.url(),
  loginUrl: z.url(),
  tenantId: z.string(),
  subscriptionId: z.string(),
  caPem: z.string().optional(),
});
export type HubFacts = z.infer<typeof hubFactsShape>;

/** A program's credential with its hub, as `watari principal create` and the hub itself write it. */
export const operatorFileShape = hubFactsShape.extend({ clientId: z.string(), clientSecret: z.string(), caPem: z.string() });

const profileShape = hubFactsShape.extend({
  clientId: z.string(),
  clientSecret: z.string().optional(),
  /** Where the secret came from: the hub renews it there before its end. */
  credentialFile: z.string().optional(),
  /** PEM with certificate and key, in place of a secret. */
  certificateFile: z.string().optional(),
  /** Tokens of a person, in place of a credential. */
  sessionFile: z.string().optional(),
  resourceGroup: z.string(),
  location: z.string(),
  /** "http://host:port" of the only way out; absent where the hub's public names are reached directly. */
  proxy: z.string().optional(),
  /** Where the hub's public names are, for a desk whose resolver does not know them. */
  address: z.string().optional(),
});
export type Profile = z.infer<typeof profileShape>;

/** WATARI_PROFILE, or the user's configuration folder. */
export function profilePath(environment: NodeJS.ProcessEnv): string {
  return environment["WATARI_PROFILE"] ?? join(environment["XDG_CONFIG_HOME"] ?? join(homedir(), ".config"), "watari", "profile.json");
}

export async function readProfile(path: string): Promise<Profile> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new Fault("Unauthorized", "could not read a profile: nobody is signed in here", {
      evidence: { file: path },
      action: "run: watari login --hub https://management.<domain> (watari login --help has the other ways)",
      cause: error,
    });
  }
  return parseJson(text, profileShape, path);
}

export async function writeProfile(path: string, profile: Profile): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(profile, undefined, 2)}\n`, { mode: 0o600 });
}

/** Parses a JSON file's text by its schema; a bad file is a Fault that names the file and the fields. */
export function parseJson<T>(text: string, shape: z.ZodType<T>, file: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Fault("InputInvalid", `could not read ${file}: it is not JSON`, { evidence: { file }, cause: error });
  }
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new Fault("InputInvalid", `could not read ${file}: it does not fit`, { evidence: { file, problems } });
}
