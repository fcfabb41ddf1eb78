/** Key material as configuration gives it: PEM text, or the path of a file that holds it (read anew at each use, so that a renewed file is found). */
import { readFileSync } from 'node:fs';

export interface TlsFiles {
  /** PEM text or a file's path. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** The PEM bytes. Throws the file system's error when the path cannot be read. */
export function readPem(source: string): Buffer {
  return source.includes('-----BEGIN') ? Buffer.from(source) : readFileSync(source);
}
