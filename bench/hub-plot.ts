// The hub's figures as one SVG: percentiles by kind of call, the time of every page of the lists, the heap over all calls.

import type { LoadFigures } from "./hub-load.ts";

const [width, panelHeight, left, gap] = [860, 210, 70, 60];
const plotWidth = width - left - 30;
const colours = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"];

interface Series {
  readonly name: string;
  readonly values: readonly number[];
}

export function plotHub(load: LoadFigures): string {
  const panels = [
    bars(load),
    lines(
      "time of each page, in the order of the list (ms)",
      load.walks.map(({ list, rows, spread }) => ({ name: `${list}, ${rows} rows`, values: spread })),
    ),
    lines("heap alive after each tenth of the calls (MiB)", [{ name: "heap", values: load.heapMib }]),
  ];
  const height = panels.length * (panelHeight + gap) + 20;
  const placed = panels.map((panel, index) => `<g transform="translate(0 ${20 + index * (panelHeight + gap)})">${panel}</g>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
${placed.join("\n")}
</svg>
`;
}

function bars({ kinds, itemCount, eventCount }: LoadFigures): string {
  const names = ["p50Ms", "p90Ms", "p99Ms"] as const;
  const limitMs = 50;
  const top = Math.max(limitMs, ...kinds.map(({ p99Ms }) => p99Ms)) * 1.1;
  const y = (value: number): number => panelHeight - (value / top) * (panelHeight - 20);
  const slot = plotWidth / kinds.length;
  const drawn = kinds.flatMap((figures, kind) =>
    names.map((name, index) => {
      const [x, value] = [left + kind * slot + 20 + index * (slot / 4), figures[name]];
      return `<rect x="${x}" y="${y(value)}" width="${slot / 5}" height="${panelHeight - y(value)}" fill="${colours[index]}"/><text x="${x}" y="${y(value) - 3}">${value}</text>`;
    }),
  );
  const labels = kinds.map(
    ({ kind }, index) => `<text x="${left + index * slot + 20}" y="${panelHeight + 16}">${kind}: p50, p90, p99</text>`,
  );
  const limit = `<line x1="${left}" x2="${width - 30}" y1="${y(limitMs)}" y2="${y(limitMs)}" stroke="#888" stroke-dasharray="4"/><text x="${left - 60}" y="${y(limitMs) + 4}">50 ms</text>`;
  return `${title(`time of a call with ${itemCount} items and ${eventCount} events (ms)`)}${limit}${drawn.join("")}${labels.join("")}`;
}

function lines(name: string, series: readonly Series[]): string {
  const top = Math.max(1, ...series.flatMap(({ values }) => values)) * 1.1;
  const point = (values: readonly number[], value: number, index: number): string =>
    `${(left + (index / Math.max(1, values.length - 1)) * plotWidth).toFixed(1)},${(panelHeight - (value / top) * (panelHeight - 20)).toFixed(1)}`;
  const drawn = series.map(({ name: label, values }, index) => {
    const points = values.map((value, at) => point(values, value, at)).join(" ");
    return `<polyline fill="none" stroke="${colours[index]}" points="${points}"/><text x="${left + index * 270}" y="${panelHeight + 16}" fill="${colours[index]}">${label}</text>`;
  });
  const axis = `<line x1="${left}" x2="${width - 30}" y1="${panelHeight}" y2="${panelHeight}" stroke="#888"/><text x="10" y="24">${top.toFixed(0)}</text><text x="10" y="${panelHeight}">0</text>`;
  return `${title(name)}${axis}${drawn.join("")}`;
}

function title(text: string): string {
  return `<text x="${left}" y="4" font-weight="bold">${text}</text>`;
}
