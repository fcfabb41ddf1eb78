/** A trouble of the disk in words, whoever found it. */
import type { DiskProblem, NodeProblem } from '../../core/report.ts';
import { assertNever } from '../../core/result.ts';

const problem = (code: DiskProblem, text: string, remedy: string): NodeProblem => ({ code, text, remedy });

export function describeDiskProblem(code: DiskProblem, detail: string): NodeProblem {
  switch (code) {
    case 'disk.full':
      return problem(
        'disk.full',
        `the disk of the data directory is full: ${detail}`,
        'Free space, or grow the volume; look for slots that keep WAL ("pgherd lag") and for an archive_command that fails.',
      );
    case 'disk.read-only':
      return problem(
        'disk.read-only',
        `the disk of the data directory is read-only: ${detail}`,
        'See the kernel log ("dmesg") for the error of the device; check the file system and mount it again.',
      );
    case 'disk.stuck':
      return problem(
        'disk.stuck',
        `the disk of the data directory does not answer: ${detail}`,
        'See the kernel log ("dmesg") and the storage behind the volume; a host whose disk does not come back has to be turned off.',
      );
    case 'disk.error':
      return problem(
        'disk.error',
        `the disk of the data directory answers with errors: ${detail}`,
        'See the kernel log ("dmesg"); replace the device, and copy the node anew ("pgherd node rejoin --via clone").',
      );
    default:
      return assertNever(code, 'describeDiskProblem');
  }
}
