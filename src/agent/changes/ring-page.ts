// Reads the pages of the kernel's trace ring buffer, as trace_pipe_raw gives them (include/linux/ring_buffer.h).

/** Where the parts of a page lie, as events/header_page tells it. */
export interface PageFormat {
  readonly commitOffset: number;
  readonly dataOffset: number;
  readonly pageBytes: number;
}

export interface RingPage {
  /** Start of each event's record in the page. */
  readonly records: readonly number[];
  /** The kernel dropped events before this page, or the page is not one that this reader understands. */
  readonly isLossy: boolean;
}

const lengthMask = 0xf_ffff;
const missedFlags = 0xc000_0000;
const timeExtendType = 30;
const timeStampType = 31;
const paddingType = 29;

/** undefined when a field is missing. */
export function parsePageFormat(text: string): PageFormat | undefined {
  const placeOf = (name: string): { readonly offset: number; readonly size: number } | undefined => {
    const [, offset, size] = new RegExp(`\\b${name};\\s*offset:(\\d+);\\s*size:(\\d+);`).exec(text) ?? [];
    return offset === undefined || size === undefined ? undefined : { offset: Number(offset), size: Number(size) };
  };
  const [commit, data] = [placeOf("commit"), placeOf("data")];
  if (commit === undefined || data === undefined) return undefined;
  return { commitOffset: commit.offset, dataOffset: data.offset, pageBytes: data.offset + data.size };
}

/** The events of a page. One that does not add up is called lossy, never empty. */
export function readRingPage(page: DataView, format: PageFormat): RingPage {
  const commit = page.getUint32(format.commitOffset, true);
  const end = format.dataOffset + (commit & lengthMask);
  const records: number[] = [];
  let isLossy = (commit & missedFlags) !== 0 || end > page.byteLength;
  let at = format.dataOffset;
  while (!isLossy && at < end) {
    const length = eventLength(page, at, end);
    if (length === undefined || at + length > end) isLossy = true;
    else {
      const type = page.getUint32(at, true) & 31;
      if (type < paddingType) records.push(at + (type === 0 ? 8 : 4));
      at += length;
    }
  }
  return { records, isLossy };
}

/** Bytes of the event at `at` with its head; undefined when it cannot be. */
function eventLength(page: DataView, at: number, end: number): number | undefined {
  if (at + 4 > end) return undefined;
  const head = page.getUint32(at, true);
  const type = head & 31;
  if (type === timeExtendType || type === timeStampType) return 8;
  if (type > 0 && type < paddingType) return 4 + type * 4;
  // Padding without a time reaches to the end of the page.
  if (type === paddingType && head >>> 5 === 0) return end - at;
  if (at + 8 > end) return undefined;
  const length = page.getUint32(at + 4, true);
  return length < 4 ? undefined : 4 + length;
}
