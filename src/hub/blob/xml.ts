// The XML that the blob front writes: escaped text and the list of blobs.

import { toDate } from "../../base/clock.ts";
import type { BlobFacts } from "./blob-files.ts";

/** Named references only: the service's own library knows no others. */
const references: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;" };

export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => references[char] ?? char);
}

export interface BlobList {
  readonly serviceUrl: string;
  readonly container: string;
  readonly prefix: string;
  readonly marker: string;
  readonly resultsMax: number;
  readonly blobs: readonly BlobFacts[];
  readonly nextMarker: string;
}

export function blobListXml(list: BlobList): string {
  const blobs = list.blobs.map(
    (blob) =>
      `<Blob><Name>${escapeXml(blob.name)}</Name><Properties><Creation-Time>${httpDate(blob.modifiedMs)}</Creation-Time>` +
      `<Last-Modified>${httpDate(blob.modifiedMs)}</Last-Modified><Etag>${escapeXml(blob.etag.replaceAll('"', ""))}</Etag>` +
      `<Content-Length>${blob.sizeBytes}</Content-Length><Content-Type>${escapeXml(blob.contentType)}</Content-Type>` +
      (blob.contentMd5 === undefined ? "" : `<Content-MD5>${escapeXml(blob.contentMd5)}</Content-MD5>`) +
      `<BlobType>BlockBlob</BlobType></Properties></Blob>`,
  );
  return (
    `<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="${escapeXml(list.serviceUrl)}" ContainerName="${escapeXml(list.container)}">` +
    `<Prefix>${escapeXml(list.prefix)}</Prefix><Marker>${escapeXml(list.marker)}</Marker><MaxResults>${list.resultsMax}</MaxResults>` +
    `<Blobs>${blobs.join("")}</Blobs><NextMarker>${escapeXml(list.nextMarker)}</NextMarker></EnumerationResults>`
  );
}

export interface ContainerList {
  readonly serviceUrl: string;
  readonly prefix: string;
  readonly marker: string;
  readonly resultsMax: number;
  readonly containers: readonly string[];
  readonly nextMarker: string;
  readonly modifiedMs: number;
}

export function containerListXml(list: ContainerList): string {
  const containers = list.containers.map(
    (name) =>
      `<Container><Name>${escapeXml(name)}</Name><Properties><Last-Modified>${httpDate(list.modifiedMs)}</Last-Modified><Etag>0x0</Etag>` +
      `<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState></Properties></Container>`,
  );
  return (
    `<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="${escapeXml(list.serviceUrl)}"><Prefix>${escapeXml(list.prefix)}</Prefix>` +
    `<Marker>${escapeXml(list.marker)}</Marker><MaxResults>${list.resultsMax}</MaxResults><Containers>${containers.join("")}</Containers>` +
    `<NextMarker>${escapeXml(list.nextMarker)}</NextMarker></EnumerationResults>`
  );
}

/** The date form of HTTP headers. */
export function httpDate(timeMs: number): string {
  return toDate(timeMs).toUTCString();
}
