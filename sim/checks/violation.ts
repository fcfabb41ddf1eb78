/** An invariant that did not hold: `invariant` is its id (I1…, L1…) as in docs/simulation.md. */
export class Violation extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`);
    this.invariant = invariant;
  }
}

/** The run met what the product says that it cannot hold; it ends here and is counted. */
export class Excused extends Error {}
