/** When a silence counts as one. */

/**
 * When this process itself stood still, its timers run before what has arrived meanwhile is read: a silence counts only after sockets and queued work had
 * their turns. Three, since an answer of the same process takes two. *Source:* Node.js, the event loop, phases.
 */
const LATE_TURNS = 3;

/** Calls back once, when `limitMs` have passed and the turns after them, unless the function that it answers was called before. */
export function onSilence(limitMs: number, callback: () => void): () => void {
  let turn: NodeJS.Immediate | null = null;
  const late = (turns: number): void => {
    if (turns === 0) callback();
    else turn = setImmediate(() => late(turns - 1));
  };
  const timer = setTimeout(() => late(LATE_TURNS), limitMs);
  return () => {
    clearTimeout(timer);
    if (turn !== null) clearImmediate(turn);
  };
}
