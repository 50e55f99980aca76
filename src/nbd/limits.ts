// Bounds of the NBD server, each with a name.

import { blockBytes } from "../disk/geometry.ts";

/** Longest payload of a request that is told to clients and enforced. */
export const requestBytesMax = 32 * 2 ** 20;
/** Longest data of an option before it is refused unread. */
export const optionBytesMax = 8_192;
/** Longer options end the connection instead of being skipped. */
export const optionSkipBytesMax = 2 ** 20;
export const optionCountMax = 64;
export const exportNameBytesMax = 4_096;
/** Requests of one connection that are answered at the same time. */
export const requestsInFlightMax = 32;
/** Bytes of data that one connection may hold in memory. */
export const bytesInFlightMax = 32 * 2 ** 20;
/** Data travels in pieces of at most this size when the client allows it. */
export const pieceBytesMax = 2 ** 20;
/** Zeros are written in pieces of this size. */
export const zeroPieceBytes = 2 ** 20;
/** Extents in one answer to a block status request. */
export const statusExtentsMax = 4_096;
/** Part of the disk that one block status request looks at. */
export const statusBytesMax = 2 ** 30;
export const connectionsMax = 64;
export const handshakeMsMax = 10_000;
export const blockSizes = { minimumBytes: 1, preferredBytes: blockBytes } as const;
