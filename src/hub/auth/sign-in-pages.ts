// The few pages that people see while they sign in: plain HTML, no script but the one that sends an answer on, nothing from elsewhere.

interface Page {
  readonly html: string;
  /** Value of Content-Security-Policy. */
  readonly policy: string;
}

const style =
  "body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:12vh auto;padding:0 1rem;color:#1b1b1f}" +
  "h1{font-size:1.3rem}button,.button{font:inherit;padding:.5rem 1rem;border:1px solid #1b1b1f;border-radius:.3rem;background:#1b1b1f;color:#fff;" +
  "cursor:pointer;text-decoration:none;display:inline-block;margin:.3rem .3rem .3rem 0}button.plain{background:#fff;color:#1b1b1f}" +
  "input{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.3rem 0}code{font-size:1.2rem;letter-spacing:.1em}" +
  "hr{border:0;border-top:1px solid #ccc;margin:1.5rem 0}.reason{color:#a00}";

/** Forms lead on to the client on the same machine; browsers hold the whole way against the policy. */
const formTargets = "'self' http://127.0.0.1:* http://localhost:*";

function page(title: string, body: string, more: { readonly nonce: string; readonly script?: string }): Page {
  const script = more.script === undefined ? "" : `<script nonce="${more.nonce}">${more.script}</script>`;
  const scripts = more.script === undefined ? "" : `script-src 'nonce-${more.nonce}'; `;
  return {
    html:
      `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
      `<title>${escape(title)}</title><style nonce="${more.nonce}">${style}</style></head>` +
      `<body><main><h1>${escape(title)}</h1>${body}</main>${script}</body></html>`,
    policy:
      `default-src 'none'; style-src 'nonce-${more.nonce}'; ${scripts}` +
      `form-action ${formTargets}; frame-ancestors 'none'; base-uri 'none'`,
  };
}

export function choicePage(wanted: {
  readonly nonce: string;
  readonly base: string;
  readonly signInId: string;
  readonly clientName: string;
  readonly providerName: string | undefined;
  readonly hasLocalAccount: "yes" | "no";
  readonly reason?: string;
}): Page {
  const { nonce, base, signInId, clientName, providerName, hasLocalAccount, reason } = wanted;
  const provider =
    providerName === undefined
      ? ""
      : `<p><a class="button" href="${escape(`${base}/signin/provider?id=${signInId}`)}">Sign in with ${escape(providerName)}</a></p>`;
  const local =
    `<form method="post" action="${escape(`${base}/signin/local`)}" autocomplete="off"><input type="hidden" name="id" value="${escape(signInId)}">` +
    `<label for="secret">Secret of the local account</label><input id="secret" name="secret" type="password" required maxlength="200">` +
    `<button${providerName === undefined ? "" : ' class="plain"'}>Sign in with the local account</button></form>`;
  const nobody =
    "<p>Nobody can sign in here: no identity provider is configured, and there is no local account. Who runs the hub makes one with <b>watari hub account create</b>.</p>";
  const ways = [provider, hasLocalAccount === "yes" ? local : ""].filter((way) => way !== "");
  const told = reason === undefined ? "" : `<p class="reason">${escape(reason)}</p>`;
  return page(
    "Sign in to Watari",
    `<p>${escape(clientName)} wants to act for you.</p>${told}${ways.length === 0 ? nobody : ways.join("<hr>")}`,
    { nonce },
  );
}

export function deviceCodePage(wanted: {
  readonly nonce: string;
  readonly base: string;
  readonly userCode: string;
  readonly reason?: string;
}): Page {
  const told = wanted.reason === undefined ? "" : `<p class="reason">${escape(wanted.reason)}</p>`;
  const form =
    `<form method="post" action="${escape(`${wanted.base}/device`)}" autocomplete="off"><label for="code">Code that your terminal shows</label>` +
    `<input id="code" name="user_code" value="${escape(wanted.userCode)}" required maxlength="20" autofocus><button>Next</button></form>`;
  return page("Sign in a terminal", `${told}${form}`, { nonce: wanted.nonce });
}

/** The person must know that another machine is signed in, not this browser (RFC 8628, 5.4). */
export function confirmPage(wanted: {
  readonly nonce: string;
  readonly base: string;
  readonly signInId: string;
  readonly clientName: string;
  readonly askedFrom: string;
  readonly personName: string;
}): Page {
  const { nonce, base, signInId, clientName, askedFrom, personName } = wanted;
  const body =
    `<p>${escape(clientName)} at the address <b>${escape(askedFrom)}</b> asks to be signed in as <b>${escape(personName)}</b>.</p>` +
    `<p>Go on only if you began this yourself, at that machine.</p>` +
    `<form method="post" action="${escape(`${base}/signin/confirm`)}"><input type="hidden" name="id" value="${escape(signInId)}">` +
    `<button name="answer" value="yes">Sign it in</button><button class="plain" name="answer" value="no">Refuse</button></form>`;
  return page("Is this your terminal?", body, { nonce });
}

export function messagePage(wanted: { readonly nonce: string; readonly title: string; readonly text: string }): Page {
  return page(wanted.title, `<p>${escape(wanted.text)}</p>`, { nonce: wanted.nonce });
}

/** OAuth 2.0 Form Post Response Mode. */
export function formPostPage(wanted: {
  readonly nonce: string;
  readonly action: string;
  readonly fields: Readonly<Record<string, string>>;
}): Page {
  const inputs = Object.entries(wanted.fields).map(
    ([name, value]) => `<input type="hidden" name="${escape(name)}" value="${escape(value)}">`,
  );
  const form = `<form method="post" action="${escape(wanted.action)}">${inputs.join("")}<button>Go on</button></form>`;
  return page("Signed in", form, { nonce: wanted.nonce, script: "document.forms[0].submit()" });
}

function escape(text: string): string {
  return text.replaceAll(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
