/** cli-table3 measures and cuts wide characters with these; its package has no types for them. */
declare module 'cli-table3/src/utils.js' {
  export function strlen(text: string): number;
  export function truncate(text: string, width: number, mark: string): string;
}
