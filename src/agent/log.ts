// The agent's log: JSON lines on stderr for journald, held in memory while filesystems are frozen.

import type { Clock } from "../base/clock.ts";
import { toTimestamp } from "../base/clock.ts";
import type { Log, LogFields } from "../base/log.ts";

export interface AgentLog extends Log {
  /** From here on lines stay in memory. A write to a journal on a frozen filesystem would block the agent that must thaw it. */
  hold(): void;
  /** Writes what was held. Twice is fine. */
  release(): void;
}

const heldLinesMax = 1000;

export function createAgentLog(options: { readonly clock: Clock; readonly write: (line: string) => void }): AgentLog {
  const held: string[] = [];
  let isHolding = false;
  let dropped = 0;
  const emit = (level: string, message: string, fields: LogFields): void => {
    const line = `${JSON.stringify({ time: toTimestamp(options.clock.nowMs()), level, message, ...fields })}\n`;
    if (!isHolding) options.write(line);
    else if (held.length < heldLinesMax) held.push(line);
    else dropped += 1;
  };
  const wrap = (base: LogFields): Log => ({
    error: (message, fields) => emit("error", message, { ...base, ...fields }),
    warn: (message, fields) => emit("warn", message, { ...base, ...fields }),
    info: (message, fields) => emit("info", message, { ...base, ...fields }),
    debug: () => undefined,
    with: (fields) => wrap({ ...base, ...fields }),
  });
  return {
    ...wrap({ program: "agent" }),
    hold: () => {
      isHolding = true;
    },
    release: () => {
      isHolding = false;
      for (const line of held.splice(0)) options.write(line);
      if (dropped > 0) emit("warn", "log lines were dropped while filesystems were frozen", { dropped });
      dropped = 0;
    },
  };
}
