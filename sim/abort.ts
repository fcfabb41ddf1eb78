/**
 * AbortController without what costs time: no events, no stack trace for each abort, no weak references. Installed once a process, for the roles under
 * simulation, which use `aborted`, `addEventListener('abort')`, `removeEventListener` and `AbortSignal.any` and nothing else of it.
 */
type Listener = () => void;

class LightSignal {
  fired = false;
  reason: unknown = undefined;
  /** Null: none; most signals have one listener at a time. */
  listeners: Listener[] | null = null;
  /** Signals that follow this one; dropped when they are aborted or nobody listens to them. */
  followers: LightSignal[] | null = null;
  sources: LightSignal[] | null = null;

  /** A composite looks at its sources whenever it is asked, since it follows them only while somebody listens. */
  get aborted(): boolean {
    if (this.fired || this.sources === null) return this.fired;
    for (const source of this.sources) if (source.aborted) return true;
    return false;
  }

  addEventListener(_type: 'abort', listener: Listener): void {
    if (this.aborted) return;
    this.listeners ??= [];
    if (!this.listeners.includes(listener)) this.listeners.push(listener);
    // Followed only while somebody listens, so that a short-lived composite leaves nothing behind at a long-lived source.
    if (this.sources !== null && this.listeners.length === 1)
      for (const source of this.sources) {
        source.followers ??= [];
        source.followers.push(this);
      }
  }

  removeEventListener(_type: 'abort', listener: Listener): void {
    if (this.listeners === null) return;
    const at = this.listeners.indexOf(listener);
    if (at < 0) return;
    this.listeners.splice(at, 1);
    if (this.listeners.length === 0) this.leave();
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  leave(): void {
    for (const source of this.sources ?? []) {
      const at = source.followers?.indexOf(this) ?? -1;
      if (at >= 0) source.followers?.splice(at, 1);
    }
  }

  fire(reason: unknown): void {
    if (this.fired) return;
    this.fired = true;
    this.reason = reason;
    const { listeners, followers } = this;
    this.leave();
    this.listeners = null;
    this.followers = null;
    for (const follower of followers ?? []) follower.fire(reason);
    for (const listener of listeners ?? []) listener();
  }
}

class LightController {
  readonly signal = new LightSignal();

  abort(reason: unknown = 'aborted'): void {
    this.signal.fire(reason);
  }
}

/** Replaces the global ones. Harmless when it was done before. */
export function installLightAbort(): void {
  Object.assign(globalThis, {
    AbortController: LightController,
    AbortSignal: Object.assign(LightSignal, { any: (sources: Iterable<LightSignal>) => Object.assign(new LightSignal(), { sources: [...sources] }) }),
  });
}
