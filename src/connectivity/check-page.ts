// The result of a check as one HTML file that can be sent to anybody: no script, nothing loaded, every text escaped. Pure.

import type { NetworkCheck } from "../contract/network-check.ts";

export interface CheckPage {
  readonly title: string;
  /** Who was asked, when: "appliance site-a of vault1", "2026-01-01T00:00:00Z". */
  readonly subject: string;
  readonly madeAt: string;
  readonly tookMs?: number;
  readonly checks: readonly NetworkCheck[];
  readonly untried?: readonly { readonly id: string; readonly reason: string }[];
}

/** The ways in their order, those that fail first; each opens to its hops. */
export function renderCheckPage(page: CheckPage): string {
  const ways = [...Map.groupBy(page.checks, ({ id }) => id.slice(0, id.lastIndexOf("/")))].map(([id, hops]) => ({ id, hops }));
  const failed = ways.filter(hasFailed);
  const holding = ways.filter((way) => !hasFailed(way));
  const took = page.tookMs === undefined ? "" : `, ${(page.tookMs / 1000).toFixed(1)} s`;
  const verdict =
    failed.length === 0 ? `All ${ways.length} ways hold${took}.` : `${failed.length} of ${ways.length} ways do not hold${took}.`;
  const untried = page.untried ?? [];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeHtml(page.title)}</title>
<style>${styles}</style>
</head>
<body>
<main>
<h1>${escapeHtml(page.title)}</h1>
<p>${escapeHtml(page.subject)}, <time>${escapeHtml(page.madeAt)}</time></p>
<p class="${failed.length === 0 ? "pass" : "fail"} verdict">${escapeHtml(verdict)}</p>
${failed.length === 0 ? "" : `<h2>What to mend</h2>\n${renderRepairs(failed)}`}
<h2>Every way</h2>
${[...failed, ...holding].map(renderWay).join("\n")}
${untried.length === 0 ? "" : `<h2>Not tried</h2>\n<ul>${untried.map(({ id, reason }) => `<li>${escapeHtml(`${id}: ${reason}`)}</li>`).join("")}</ul>`}
</main>
</body>
</html>
`;
}

interface Way {
  readonly id: string;
  readonly hops: readonly NetworkCheck[];
}

function hasFailed({ hops }: Way): boolean {
  return hops.some(({ verdict }) => verdict === "fail");
}

/** One entry a repair: what fails alike is mended once. */
function renderRepairs(ways: readonly Way[]): string {
  const failures = ways.flatMap(({ hops }) => hops.filter(({ verdict }) => verdict === "fail"));
  const entries = [...Map.groupBy(failures, ({ repair, answer }) => repair ?? answer)].map(
    ([repair, alike]) =>
      `<li><strong>${escapeHtml(repair)}</strong><ul>${alike.map(({ id, answer }) => `<li>${escapeHtml(`${id}: ${answer}`)}</li>`).join("")}</ul></li>`,
  );
  return `<ol>${entries.join("")}</ol>`;
}

function renderWay(way: Way): string {
  const { id, hops } = way;
  const [first] = hops;
  const isBad = hasFailed(way);
  const tookMs = Math.round(hops.reduce((sum, { latencyMs }) => sum + latencyMs, 0));
  const head = `${isBad ? "✖" : "✔"} ${id}`;
  const from = hops.find((hop) => hop.from !== undefined)?.from;
  const where = `${first?.role ?? ""}${from === undefined ? "" : ` at ${from}`} to ${first?.to ?? ""}, ${tookMs} ms`;
  return `<details${isBad ? " open" : ""}>
<summary class="${isBad ? "fail" : "pass"}">${escapeHtml(head)} <small>${escapeHtml(where)}</small></summary>
<table>
<thead><tr><th scope="col">Hop</th><th scope="col">Result</th><th scope="col">Tried</th><th scope="col">Answer</th><th scope="col">Time</th></tr></thead>
<tbody>
${hops.map(renderHop).join("\n")}
</tbody>
</table>
</details>`;
}

function renderHop(check: NetworkCheck): string {
  const cells = [check.tried, check.answer].map((text) => `<td>${escapeHtml(text)}</td>`).join("");
  const row = `<tr class="${check.verdict}"><td>${escapeHtml(check.hop)}</td><td>${check.verdict}</td>${cells}<td>${Math.round(check.latencyMs)} ms</td></tr>`;
  const evidence = Object.entries(check.fault?.evidence ?? {}).map(
    ([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml([value].flat().join(", "))}</dd>`,
  );
  const repair = check.repair === undefined ? [] : [`<dt>repair</dt><dd>${escapeHtml(check.repair)}</dd>`];
  const facts = [...evidence, ...repair];
  return facts.length === 0 ? row : `${row}\n<tr class="facts"><td colspan="5"><dl>${facts.join("")}</dl></td></tr>`;
}

function escapeHtml(text: string): string {
  const named: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replaceAll(/[&<>"']/g, (char) => named[char] ?? "");
}

const styles = `
:root { color-scheme: light dark; --good: #107c10; --bad: #c50f1f; --line: #8885; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-size: 1.15rem; font-weight: 600; }
.pass { color: var(--good); } .fail { color: var(--bad); } tr.skipped { opacity: .6; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; font-weight: 600; } small { color: GrayText; font-weight: 400; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; color: CanvasText; }
td, th { border-top: 1px solid var(--line); padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
td:last-child, th:last-child { text-align: right; white-space: nowrap; padding-right: 0; }
tr.pass td:nth-child(2) { color: var(--good); } tr.fail td:nth-child(2) { color: var(--bad); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; text-align: left; white-space: normal; }
dt { color: GrayText; } dd { margin: 0; overflow-wrap: anywhere; }
`;
