// For tests: a browser of one person. It keeps cookies, follows redirects as far as the machines of the test, and sends forms.

import { request as httpsRequest } from "node:https";

export interface Seen {
  readonly status: number;
  readonly url: URL;
  readonly text: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

export interface TestBrowser {
  /** Ends at a page, or at an address outside `ca`'s hosts: that is where a client listens. */
  open(url: string): Promise<Seen>;
  /** Sends the page's first form with these fields besides its hidden ones. */
  submit(page: Seen, fields: Readonly<Record<string, string>>): Promise<Seen>;
  /** The next address without going there. */
  step(url: string): Promise<Seen & { readonly next: string | undefined }>;
}

const hopsMax = 15;

/** `caOf` gives the authority of a host, undefined for hosts that are not followed. */
export function openTestBrowser(caOf: (host: string) => string | undefined): TestBrowser {
  const cookies = new Map<string, Map<string, string>>();
  const fetchOnce = async (url: URL, form?: string): Promise<Seen> => {
    const jar = cookies.get(url.host) ?? new Map<string, string>();
    cookies.set(url.host, jar);
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const body =
      form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded", "content-length": String(Buffer.byteLength(form)) };
    return await new Promise((resolve, reject) => {
      const sent = httpsRequest(
        {
          ...{ host: "127.0.0.1", port: url.port, servername: url.hostname, ca: caOf(url.host), agent: false },
          method: form === undefined ? "GET" : "POST",
          path: `${url.pathname}${url.search}`,
          headers: { host: url.host, ...(cookie === "" ? {} : { cookie }), ...body },
        },
        (response) => {
          for (const line of response.headers["set-cookie"] ?? []) {
            const [name = "", value = ""] = line.split(";", 1)[0]?.split(/=(.*)/s) ?? [];
            jar.set(name, value);
          }
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("end", () =>
            resolve({ status: response.statusCode ?? 0, url, text: Buffer.concat(chunks).toString("utf8"), headers: response.headers }),
          );
        },
      );
      sent.on("error", reject);
      sent.end(form);
    });
  };
  const follow = async (first: Seen): Promise<Seen> => {
    let seen = first;
    for (let hop = 0; hop < hopsMax; hop++) {
      const next = nextOf(seen);
      if (next === undefined) return seen;
      if (caOf(next.host) === undefined) return { status: 0, url: next, text: "", headers: {} };
      seen = await fetchOnce(next);
    }
    throw new Error("too many redirects");
  };
  return {
    open: async (url) => await follow(await fetchOnce(new URL(url))),
    step: async (url) => {
      const seen = await fetchOnce(new URL(url));
      return { ...seen, next: nextOf(seen)?.href };
    },
    submit: async (page, fields) => {
      const action = /<form method="post" action="([^"]+)"/.exec(page.text)?.[1] ?? "";
      const hidden = [...page.text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)">/g)].map(([, name = "", value = ""]) => [
        name,
        value,
      ]);
      const form = new URLSearchParams({ ...Object.fromEntries(hidden), ...fields }).toString();
      return await follow(await fetchOnce(new URL(unescape(action), page.url), form));
    },
  };
}

function nextOf({ status, headers, url }: Seen): URL | undefined {
  const { location } = headers;
  return status >= 300 && status < 400 && typeof location === "string" ? new URL(location, url) : undefined;
}

function unescape(text: string): string {
  return text.replaceAll(/&#(\d+);/g, (_whole, code: string) => String.fromCharCode(Number(code)));
}
