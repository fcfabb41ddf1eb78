/** What a server reports about the bytes of texts, as the classification needs it. */
import type { TextSettings } from './classify.ts';
import { ENCODING } from './scan.ts';

/** Encodings of clients whose second bytes can look like ASCII. Source: manual, "Character Set Support" (24.3), those that no server can have. */
const MIXED: readonly string[] = ['SJIS', 'SHIFT_JIS_2004', 'BIG5', 'GBK', 'UHC', 'GB18030', 'JOHAB'];
const ABOVE_ASCII = /^(SQL_ASCII|EUC_[A-Z0-9_]+|MULE_INTERNAL|LATIN\d+|WIN\d+|ISO_8859_\d+|KOI8R|KOI8U)$/;

/** The kind of an encoding by the name that ParameterStatus reports; a name that is not known is taken for the worst kind. */
export function encodingOf(name: string): number {
  if (name === 'UTF8' || name === 'UNICODE') return ENCODING.utf8;
  if (MIXED.includes(name)) return ENCODING.mixed;
  return ABOVE_ASCII.test(name) ? ENCODING.aboveAscii : ENCODING.mixed;
}

/** Nothing is taken for granted: backslashes, and names and escaped strings with bytes above ASCII, are not understood. */
export const UNSURE_TEXT: TextSettings = { encoding: ENCODING.mixed, standardStrings: false, ownSettings: false };
