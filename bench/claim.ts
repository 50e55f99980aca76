// A claim of the benchmarks: ours beside a peer's or beside a limit, as one number with a bar, and how claims are shown.

import { formatRows, median } from "./measured.ts";

export interface Claim {
  readonly claim: string;
  readonly ours: number;
  readonly unit: string;
  /** The peer's name; "limit" where a promise stands beside and no program. */
  readonly peer: string;
  readonly theirs: number;
  readonly ratio: number;
  readonly bar: number;
  /** Whether the ratio has to stay below its bar or to reach it. */
  readonly sense: "at most" | "at least";
  readonly met: boolean;
  /** Whole runs that the figures are medians of. */
  readonly rounds: number;
  /** Shown for the reader, no promise: a peer that does less than the job, or the same figure told in another way. */
  readonly isExtra?: boolean;
}

interface Pair {
  readonly claim: string;
  readonly ours: readonly number[];
  readonly unit: string;
  readonly peer: string;
  readonly theirs: readonly number[];
  readonly bar: number;
}

/** Ours divided by theirs stays at or below the bar. */
export function atMost({ claim, ours, unit, peer, theirs, bar }: Pair): Claim {
  const ratio = median(ours) / median(theirs);
  const figures = { ours: median(ours), unit, peer, theirs: median(theirs), ratio, bar };
  return { claim, ...figures, sense: "at most", met: ratio <= bar, rounds: ours.length };
}

/** We need so much less than they: theirs divided by ours reaches the bar. */
export function timesLess({ claim, ours, unit, peer, theirs, bar }: Pair): Claim {
  const ratio = median(theirs) / median(ours);
  const figures = { ours: median(ours), unit, peer, theirs: median(theirs), ratio, bar };
  return { claim, ...figures, sense: "at least", met: ratio >= bar, rounds: ours.length };
}

/** We do so much more than they: ours divided by theirs reaches the bar. */
export function timesMore({ claim, ours, unit, peer, theirs, bar }: Pair): Claim {
  const ratio = median(ours) / median(theirs);
  const figures = { ours: median(ours), unit, peer, theirs: median(theirs), ratio, bar };
  return { claim, ...figures, sense: "at least", met: ratio >= bar, rounds: ours.length };
}

/** Ours stays at or below a promised number. */
export function withinLimit(claim: string, { ours, unit, limit }: { ours: readonly number[]; unit: string; limit: number }): Claim {
  return atMost({ claim, ours, unit, peer: "limit", theirs: ours.map(() => limit), bar: 1 });
}

/** The same row, of which nothing is promised. */
export function extra(claim: Claim): Claim {
  return { ...claim, isExtra: true };
}

export function formatClaims(claims: readonly Claim[]): string {
  const figure = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2));
  const rows = claims.map(({ claim, ours, unit, peer, theirs, ratio, bar, sense, met, isExtra = false }) => {
    const limit = `${sense === "at most" ? "≤" : "≥"} ${figure(bar)}`;
    return [
      claim,
      `${figure(ours)} ${unit}`,
      peer,
      `${figure(theirs)} ${unit}`,
      figure(ratio),
      limit,
      isExtra ? "(extra)" : met ? "met" : "MISSED",
    ];
  });
  return formatRows([["claim", "ours", "beside", "theirs", "ratio", "bar", ""], ...rows]);
}

const [width, rowHeight, textWidth, top] = [1240, 26, 800, 40];

/** One bar a claim, as the share of its bar that is used: left of the line is met. */
export function plotClaims(claims: readonly Claim[]): string {
  const used = claims.map(({ sense, ratio, bar }) => (sense === "at most" ? ratio / bar : bar / ratio));
  const scale = (width - textWidth - 80) / 2;
  const rows = claims.map(({ claim, peer, met, ratio, isExtra = false }, index) => {
    const color = isExtra ? "#9e9e9e" : met ? "#2e7d32" : "#c62828";
    const [y, share] = [top + index * rowHeight, Math.min(used[index] ?? 0, 2)];
    const label = escapeText(`${claim}, beside ${peer}`);
    return `<text x="${textWidth - 8}" y="${y + 16}" text-anchor="end">${label}</text>
<rect x="${textWidth}" y="${y + 4}" width="${(share * scale).toFixed(1)}" height="${rowHeight - 8}" fill="${color}"/>
<text x="${(textWidth + share * scale + 4).toFixed(1)}" y="${y + 16}">${ratio.toFixed(2)}</text>`;
  });
  const height = top + claims.length * rowHeight + 10;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="11">
<rect width="100%" height="100%" fill="white"/>
<text x="${textWidth + scale}" y="20" text-anchor="middle">the bar: left of it a claim is met</text>
${rows.join("\n")}
<line x1="${textWidth + scale}" x2="${textWidth + scale}" y1="26" y2="${height - 6}" stroke="black"/>
</svg>
`;
}

function escapeText(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
