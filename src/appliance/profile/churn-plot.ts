// Draws a profile's churn over time: as SVG, or as one line of text.

import type { ChurnProfile } from "../../contract/churn-profile.ts";
import { rateText } from "../../cli/output.ts";

const bars = "▁ ▂ ▃ ▄ ▅ ▆ ▇ █".split(" ");
const textColumnsMax = 60;
const [width, height, margin] = [720, 220, 40];

/** The highest bar is the highest rate. */
export function churnLine({ samples, sampleSeconds }: ChurnProfile): string {
  const columns = joinSamples(samples, textColumnsMax);
  const highest = Math.max(...columns, 1);
  const line = columns.map((bytes) => bars[Math.min(bars.length - 1, Math.floor((bytes / highest) * bars.length))] ?? "").join("");
  return `${line}  up to ${rateText(highest / sampleSeconds)}`;
}

export function churnSvg({ samples, sampleSeconds }: ChurnProfile, title: string): string {
  const highest = Math.max(...samples, 1);
  const barWidth = (width - 2 * margin) / samples.length;
  const drawn = samples.map((bytes, index) => {
    const barHeight = (bytes / highest) * (height - 2 * margin);
    const [x, y] = [margin + index * barWidth, height - margin - barHeight];
    return `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${(barWidth * 0.9).toFixed(1)}" height="${barHeight.toFixed(1)}"/>`;
  });
  const seconds = Math.round(samples.length * sampleSeconds);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<text x="${margin}" y="20">${escapeXml(title)}</text>
<g fill="#2b6cb0">${drawn.join("")}</g>
<path d="M${margin} ${height - margin}H${width - margin}" stroke="#333"/>
<text x="${margin}" y="${height - margin + 18}">0 s</text>
<text x="${width - margin}" y="${height - margin + 18}" text-anchor="end">${seconds} s</text>
<text x="${width - margin}" y="20" text-anchor="end">highest ${rateText(highest / sampleSeconds)}</text>
</svg>
`;
}

/** Means of neighbours, so that there are no more than so many. */
function joinSamples(samples: readonly number[], countMax: number): readonly number[] {
  const size = Math.ceil(samples.length / countMax);
  const joined: number[] = [];
  for (let start = 0; start < samples.length; start += size) {
    const part = samples.slice(start, start + size);
    joined.push(part.reduce((sum, each) => sum + each, 0) / part.length);
  }
  return joined;
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
