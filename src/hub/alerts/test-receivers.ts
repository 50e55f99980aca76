// For tests: a real mail server and a real HTTPS receiver on loopback that keep what they get and answer as they are told.

import { once } from "node:events";
import { createServer, type Server } from "node:https";
import type { IncomingHttpHeaders } from "node:http";
import type { AddressInfo, Server as TcpServer, Socket } from "node:net";
import { SMTPServer, type SMTPServerOptions } from "smtp-server";
import type { Leaf } from "../../connectivity/test-certificates.ts";

export interface ReceivedMail {
  readonly from: string;
  readonly to: readonly string[];
  readonly raw: string;
  readonly isSecure: boolean;
  readonly user: unknown;
}

export interface MailReceiver extends AsyncDisposable {
  readonly port: number;
  readonly mails: ReceivedMail[];
}

export interface MailReceiverWish {
  readonly certificate: Leaf;
  readonly secure?: boolean;
  readonly options?: SMTPServerOptions;
  /** An answer to a whole mail in place of taking it; called with the number of mails before it. */
  readonly refuse?: (count: number) => { readonly code: number; readonly text: string } | undefined;
  /** Called when a mail is stored and before it is answered. */
  readonly onMail?: (count: number) => Promise<void>;
}

export async function startMailReceiver(wish: MailReceiverWish): Promise<MailReceiver> {
  const mails: ReceivedMail[] = [];
  let asked = 0;
  const server = new SMTPServer({
    ...{ secure: wish.secure ?? false, cert: wish.certificate.cert, key: wish.certificate.key, authOptional: true, logger: false },
    ...wish.options,
    onData: (stream, session, callback) => {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => void chunks.push(chunk));
      stream.on("end", () => {
        const refusal = wish.refuse?.(asked++);
        if (refusal !== undefined) return callback(Object.assign(new Error(refusal.text), { responseCode: refusal.code }));
        const { mailFrom, rcptTo } = session.envelope;
        const from = mailFrom === false ? "" : mailFrom.address;
        const to = rcptTo.map(({ address }) => address);
        mails.push({ from, to, raw: Buffer.concat(chunks).toString("utf8"), isSecure: session.secure, user: session.user });
        const told = wish.onMail?.(mails.length) ?? Promise.resolve();
        return void told.then(() => callback(null, "kept"));
      });
    },
  });
  server.on("error", () => undefined); // Clients that break off are what some tests are about.
  server.listen(0, "127.0.0.1");
  await once(server.server, "listening");
  const { port } = server.server.address() as AddressInfo;
  return { port, mails, [Symbol.asyncDispose]: async () => await new Promise<void>((resolve) => server.close(() => resolve())) };
}

export interface ReceivedPost {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface PostReceiver extends AsyncDisposable {
  readonly port: number;
  readonly posts: ReceivedPost[];
  /** Status of the next answers; "hang" answers never, "close" cuts the connection. */
  answer: number | "hang" | "close";
  readonly headers: Record<string, string>;
}

export async function startPostReceiver(certificate: Leaf, onPost?: (count: number) => void): Promise<PostReceiver> {
  const posts: ReceivedPost[] = [];
  const server: Server = createServer(certificate, (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => void chunks.push(chunk));
    request.on("end", () => {
      posts.push({ headers: request.headers, body: Buffer.concat(chunks).toString("utf8") });
      onPost?.(posts.length);
      if (receiver.answer === "hang") return;
      if (receiver.answer === "close") return void request.socket.destroy();
      response.writeHead(receiver.answer, receiver.headers).end("what a service inside would say");
    });
  });
  const port = await listen(server);
  const receiver: PostReceiver = { port, posts, answer: 204, headers: {}, [Symbol.asyncDispose]: async () => await stop(server) };
  return receiver;
}

/** Closing does not wait for connections that are held open on purpose. */
const sockets = new WeakMap<TcpServer, Set<Socket>>();

export async function listen(server: TcpServer): Promise<number> {
  const open = new Set<Socket>();
  sockets.set(server, open);
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => undefined); // Cut on purpose.
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port; // A TCP server that listens has one.
}

export async function stop(server: TcpServer): Promise<void> {
  for (const socket of sockets.get(server) ?? []) socket.destroy();
  await new Promise<void>((resolve) => void server.close(() => resolve()));
}
