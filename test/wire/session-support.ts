/** A session as its tracker sees it: messages of both sides, in the order in which they pass. */
import { buildCommandComplete, buildError, buildReady } from '../../src/wire/backend.ts';
import { decodeText } from '../../src/wire/bytes.ts';
import { buildQuery } from '../../src/wire/frontend.ts';
import { missingSettings } from '../../src/wire/session-settings.ts';
import { type Rules, createClassification } from '../../src/wire/classification.ts';
import { createClassifier } from '../../src/wire/classifier.ts';
import { type SessionState, createSessionState, noteParameter } from '../../src/wire/session-state.ts';
import { giveTo, noteClientMessage, noteServerMessage } from '../../src/wire/session-track.ts';
import { testRules } from './classify-support.ts';

export interface Talk {
  readonly state: SessionState;
  /** Messages of the client, each noted, then given to the server `owner`. */
  client(messages: readonly Uint8Array[], owner?: number): void;
  /** Noted only: no server has them yet. */
  note(messages: readonly Uint8Array[]): void;
  /** Messages of a server; what becomes of each. */
  server(messages: readonly Uint8Array[], owner?: number): readonly number[];
}

export function createTalk(rules: Rules = testRules): Talk {
  const state = createSessionState({ user: 'app' });
  const c = createClassifier(rules, createClassification());
  noteParameter(state, 'client_encoding', 'UTF8');
  noteParameter(state, 'standard_conforming_strings', 'on');
  const note = (messages: readonly Uint8Array[]): void => {
    for (const message of messages) noteClientMessage(state, c, message[0]!, message, 5, message.length);
  };
  return {
    state,
    note,
    client: (messages, owner = 0) => {
      note(messages);
      giveTo(state, owner);
    },
    server: (messages, owner = 0) =>
      messages.map((message) =>
        noteServerMessage(state, { owner, type: message[0]!, bytes: message, bodyAt: 5, end: message.length, first: message[5] ?? -1 }),
      ),
  };
}

export const error = buildError({ severity: 'ERROR', sqlState: '42601', message: 'no' });
export const done = (tag: string): Uint8Array => buildCommandComplete(tag);
export const ready = (status: 'idle' | 'open' | 'failed' = 'idle'): Uint8Array => buildReady(status);

/** A statement by the simple protocol, and its whole answer. */
export function run(talk: Talk, text: string, tag: string | null, status: 'idle' | 'open' | 'failed' = 'idle'): void {
  talk.client([buildQuery(text)]);
  talk.server([tag === null ? error : done(tag), ready(status)]);
}

/** The statements that a connection of the generation `since` lacks. */
export const settings = (talk: Talk, since = 0): readonly string[] =>
  missingSettings(talk.state.settings, since).map((text) => decodeText(text).trim());
