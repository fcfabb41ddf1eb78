/** The configuration files that `config check` knows, with the decoders that the roles themselves use. */
import { agentConfig } from '../core/agent-config.ts';
import type { Decoder } from '../core/decode.ts';
import { proxyConfig } from '../core/proxy-config.ts';
import { serverConfig } from '../core/server-config.ts';
import { clusterSpec } from '../core/spec.ts';

export const FILE_DECODERS: Readonly<Record<ConfigKind, Decoder<unknown>>> = {
  agent: agentConfig,
  cluster: clusterSpec,
  proxy: proxyConfig,
  server: serverConfig,
};

export type ConfigKind = 'agent' | 'cluster' | 'proxy' | 'server';

/** By what only this kind of file has; null when it looks like none of them. */
export function guessKind(input: unknown): ConfigKind | null {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return null;
  const has = (key: string): boolean => Object.hasOwn(input, key);
  if (has('nodes') || has('name')) return 'cluster';
  if (has('node') || has('stateDirectory')) return 'agent';
  if (has('secretFile') || has('id')) return 'proxy';
  if (has('listen') || has('dataDirectory') || has('controller') || has('names')) return 'server';
  return null;
}
