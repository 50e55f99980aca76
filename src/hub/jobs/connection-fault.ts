// Tells a lost database connection from a real failure: the first interrupts a job, the second fails it.

const connectionCodes = new Set(["ECONNREFUSED", "ECONNRESET", "EPIPE", "ENOENT", "ETIMEDOUT"]);
const connectionTexts = [
  "Connection terminated",
  "timeout exceeded when trying to connect",
  "Client has encountered a connection error",
  "Client was closed",
  "Client network socket disconnected",
  "read ECONNRESET",
  "write EPIPE",
];

/**
 * Whether the database itself was away (SQLSTATE classes 08 and 57P, or no connection at all), had no room or memory (class 53, 58030), gave
 * way to another transaction (40001, 40P01), or ended the session of a hub that was paused in a transaction (25P03). A fault that was made from such
 * an error counts too.
 */
export function isConnectionFault(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error.cause !== undefined && isConnectionFault(error.cause)) return true;
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  if (/^(08...|53...|57P0.|25P03|40001|40P01|58030)$/.test(code)) return true;
  if ("syscall" in error && error.syscall === "connect" && connectionCodes.has(code)) return true;
  return connectionTexts.some((text) => error.message.startsWith(text));
}
