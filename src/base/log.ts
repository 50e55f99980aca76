// Structured log, one event a line as JSON on stderr: constant message, values as fields, never a secret.

import pino from "pino";

export type LogFields = Readonly<Record<string, unknown>>;

/** error: someone must act. warn: we acted. info: a state changed. debug: the rest. */
export interface Log {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  /** A log whose every line carries `fields`. */
  with(fields: LogFields): Log;
}

export interface LogOptions {
  readonly program: string;
  readonly level?: "error" | "warn" | "info" | "debug";
  /** File to append to; stderr unless told. */
  readonly file?: string;
}

const secretKeys = ["password", "passphrase", "secret", "token", "sas", "key", "authorization", "accountKey", "vaultKey"];

/** Opens a program's log. Fields whose names speak of secrets are replaced, as a second line of defence. */
export function openLog(options: LogOptions): Log {
  const logger = pino(
    {
      level: options.level ?? "info",
      base: { program: options.program, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: secretKeys.flatMap((key) => [key, `*.${key}`]), censor: "[hidden]" },
    },
    pino.destination({ dest: options.file ?? 2, sync: true, mkdir: true }),
  );
  return wrap(logger);
}

/** For tests and tools that must say nothing. */
export const silentLog: Log = {
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined,
  with: () => silentLog,
};

function wrap(logger: pino.Logger): Log {
  return {
    error: (message, fields) => logger.error(fields ?? {}, message),
    warn: (message, fields) => logger.warn(fields ?? {}, message),
    info: (message, fields) => logger.info(fields ?? {}, message),
    debug: (message, fields) => logger.debug(fields ?? {}, message),
    with: (fields) => wrap(logger.child(fields)),
  };
}
