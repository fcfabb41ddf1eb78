/** Width of text as a terminal shows it: Chinese characters take two columns, colour codes none. */
import { strlen, truncate } from 'cli-table3/src/utils.js';

/** Columns that `text` takes; of its widest line when it has several. */
export function displayWidth(text: string): number {
  return strlen(text);
}

/** `text` cut to `width` columns, the last of them `…` when something was cut. */
export function cutTo(text: string, width: number): string {
  return displayWidth(text) <= width ? text : truncate(text, Math.max(width, 1), '…');
}

/** Words of `text` in lines of at most `width` columns; a longer word stands alone, or is broken where characters are wide (CJK has no spaces). */
export function wrapText(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (const word of paragraph.split(' ').flatMap((part) => breakWide(part, width))) {
      const joined = line === '' ? word : `${line} ${word}`;
      if (line !== '' && displayWidth(joined) > width) {
        lines.push(line);
        line = word;
      } else line = joined;
    }
    lines.push(line);
  }
  return lines;
}

function breakWide(word: string, width: number): readonly string[] {
  // Long ASCII words (commands, paths) stay whole: a person copies them.
  if (displayWidth(word) <= width || displayWidth(word) === word.length) return [word];
  const pieces: string[] = [];
  let piece = '';
  for (const character of word) {
    if (piece !== '' && displayWidth(piece + character) > width) {
      pieces.push(piece);
      piece = '';
    }
    piece += character;
  }
  return piece === '' ? pieces : [...pieces, piece];
}

/** Lines with a hanging indent: the first starts with `first`, the others with as many blanks. */
export function hanging(first: string, text: string, width: number): readonly string[] {
  const indent = displayWidth(first);
  return wrapText(text, Math.max(width - indent, 20)).map((line, index) => (index === 0 ? first : ' '.repeat(indent)) + line);
}
