// One try of a port: whether it takes a connection, and for SSH whether it greets as SSH does (RFC 4253, section 4.2).

import { connect } from "node:net";

export type PortAnswer = { readonly kind: "said"; readonly body: string } | { readonly kind: "failed"; readonly reason: string };

const tryMsMax = 3_000;
const greetingBytesMax = 8 << 10;

export async function tryPort(kind: "tcp" | "ssh", host: string, port: number): Promise<PortAnswer> {
  return await new Promise<PortAnswer>((resolve) => {
    const socket = connect({ host, port, timeout: tryMsMax });
    let heard = "";
    const end = (answer: PortAnswer): void => {
      socket.destroy();
      resolve(answer); // Only the first counts.
    };
    socket.once("connect", () => kind === "tcp" && end({ kind: "said", body: "" }));
    socket.on("data", (chunk: Buffer) => {
      heard += chunk.toString("latin1");
      // A server may say other lines before its own.
      const greeting = heard.split("\n").find((line) => line.startsWith("SSH-"));
      if (greeting !== undefined && heard.includes("\n", heard.indexOf(greeting))) end({ kind: "said", body: greeting.trimEnd() });
      else if (heard.length > greetingBytesMax) end({ kind: "failed", reason: "it does not greet as SSH does" });
    });
    socket.once("timeout", () => end({ kind: "failed", reason: kind === "ssh" ? "it does not greet as SSH does" : "no answer in time" }));
    socket.once("error", (error) => end({ kind: "failed", reason: error.message }));
    socket.once("close", () => end({ kind: "failed", reason: "it closed the connection" }));
  });
}
