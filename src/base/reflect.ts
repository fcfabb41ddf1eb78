/**
 * The five functions of `Reflect` metadata that the certificate library's dependency injection asks for. Its decorators store
 * design-time types there; nothing else of the proposal is used. Imported for its effect, before the library is loaded.
 * Source: tsyringe's entry check (`Reflect.getMetadata`), and the `__metadata` helper of TypeScript's emitted decorators.
 */
type Metadata = Map<unknown, unknown>;
interface WithMetadata {
  getMetadata?: (key: unknown, target: object) => unknown;
  getOwnMetadata?: (key: unknown, target: object) => unknown;
  hasOwnMetadata?: (key: unknown, target: object) => boolean;
  defineMetadata?: (key: unknown, value: unknown, target: object) => void;
  metadata?: (key: unknown, value: unknown) => (target: object) => void;
}

const stored = new WeakMap<object, Metadata>();

function define(key: unknown, value: unknown, target: object): void {
  const own = stored.get(target) ?? new Map<unknown, unknown>();
  own.set(key, value);
  stored.set(target, own);
}

function read(key: unknown, target: object): unknown {
  for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const own = stored.get(at);
    if (own?.has(key) === true) return own.get(key);
  }
  return undefined;
}

/** Does nothing when somebody else has defined them. */
export function defineReflectMetadata(): void {
  const reflect = Reflect as WithMetadata;
  if (reflect.getMetadata !== undefined) return;
  reflect.getMetadata = read;
  reflect.getOwnMetadata = (key, target) => stored.get(target)?.get(key);
  reflect.hasOwnMetadata = (key, target) => stored.get(target)?.has(key) ?? false;
  reflect.defineMetadata = define;
  reflect.metadata = (key, value) => (target) => define(key, value, target);
}
