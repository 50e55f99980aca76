// Files of one filesystem of a clone, as hydration reads and edits them, whoever opens it: host tools or the helper machine.

export interface GuestFile {
  readonly name: string;
  readonly kind: "file" | "folder" | "link" | "other";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
}

/** Changes to a guest's files, made in order. */
export type FileChange =
  | { readonly kind: "write"; readonly path: string; readonly content: Uint8Array; readonly mode: number }
  /** Gives a file a new name. The new name must be free. */
  | { readonly kind: "rename"; readonly from: string; readonly to: string }
  | { readonly kind: "remove"; readonly path: string }
  | { readonly kind: "makeFolder"; readonly path: string }
  /** It must be empty by then. */
  | { readonly kind: "removeFolder"; readonly path: string }
  | { readonly kind: "link"; readonly path: string; readonly to: string };

/** Links inside the guest are followed inside the guest only, and only on the way: a link at the end of a path is itself. */
export interface VolumeFiles {
  /** Entries of a folder, undefined when there is none. */
  list(path: string): Promise<readonly GuestFile[] | undefined>;
  /** Contents by path; a path that is not a readable file is left out. */
  read(paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>>;
  /** Makes all changes, then proves that each is there. */
  change(changes: readonly FileChange[]): Promise<void>;
}

/** Guest paths go into command languages; what is not plainly a path is refused. */
const plainPath = /^\/[A-Za-z0-9._+~:@%=/-]*$/;

export function isPlainPath(path: string): boolean {
  return plainPath.test(path) && path.length < 4096;
}
