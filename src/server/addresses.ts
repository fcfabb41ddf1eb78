/** The addresses under which others reach what listens here. */

/** `https://host:port`, with brackets around IPv6. */
export function formatUrl(host: string, atPort: number): string {
  return `https://${host.includes(':') ? `[${host}]` : host}:${atPort}`;
}

/** The host by which others reach what listens on `host`: a name from the configuration when it listens on every address. */
export function reachableHost(host: string, names: readonly string[]): string {
  const wildcard = host === '0.0.0.0' || host === '::' || host === '';
  return names[0] ?? (wildcard ? '127.0.0.1' : host);
}
