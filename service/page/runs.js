/** What the last run found, in this browser: digests of questions and how much of each was found, no words of theirs. */

const keyOf = (collection) => `qrag-questions:${location.pathname}:${collection}`;

/** A question with its expectations as a number: where both are the same, it is the same question. */
export function digest({ question, expected }) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(JSON.stringify([question, expected]))) {
    hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  }
  return hash.toString(16);
}

/** The last run over a collection; none where there is none, or it cannot be read. */
export function lastRun(collection) {
  try {
    const { at, checkpoint, steps, shares } = JSON.parse(localStorage.getItem(keyOf(collection)));
    return { at, checkpoint, steps, shares: new Map(shares) };
  } catch {
    return null;
  }
}

/** Keep a run in place of the last one; where the browser keeps nothing, there is nothing to compare with. */
export function remember(collection, run, results) {
  const shares = results.map((result) => [digest(result), result.share]);
  try {
    localStorage.setItem(keyOf(collection), JSON.stringify({ ...run, shares }));
  } catch { /* it is full, or not allowed */ }
}
