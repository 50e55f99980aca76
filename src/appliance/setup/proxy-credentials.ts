// The file with the proxy's user and password, one line "user:password", readable by the appliance only.

import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { Fault } from "../../contract/errors.ts";

/** undefined when the settings name no file, or it cannot be read: then the check of the proxy says so. */
export async function readProxyUser(path: string | undefined): Promise<string | undefined> {
  const line = path === undefined ? undefined : await readFile(path, "utf8").catch(() => undefined);
  return line === undefined || !line.includes(":") ? undefined : line.slice(0, line.indexOf(":"));
}

export interface ProxyLogin {
  /** Empty: the proxy wants none. */
  readonly userName: string;
  /** undefined keeps the one that is there, while the user is the same. */
  readonly password: string | undefined;
}

/** Answers the file that the settings shall name; undefined for none. */
export async function keepProxyLogin(
  stateFolder: string,
  present: string | undefined,
  { userName, password }: ProxyLogin,
): Promise<string | undefined> {
  const own = join(stateFolder, "proxy-credentials");
  if (userName === "") {
    await rm(own, { force: true });
    return undefined;
  }
  if (userName.includes(":") || /[\r\n]/.test(`${userName}${password ?? ""}`))
    throw new Fault("InputInvalid", "could not keep the proxy's login: it holds a colon in the name or a line break");
  if (password === undefined) {
    if (present !== undefined && (await readProxyUser(present)) === userName) return present;
    throw new Fault("InputInvalid", `could not keep the proxy's login: there is no password for ${userName}`, {
      action: "type the proxy's password",
    });
  }
  await writeFileAtomic(own, `${userName}:${password}\n`, { mode: 0o600 });
  return own;
}
