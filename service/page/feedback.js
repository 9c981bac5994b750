/** Judgements: whether a chunk helped with a question. */

import * as api from "./api.js";
import { make } from "./dom.js";
import { announce, report } from "./notices.js";

/** Two buttons that say whether a chunk helped; the pressed one is what was said last. */
export function judging({ question, collection }, chunk) {
  const name = `chunk ${chunk.index} of ${chunk.title || chunk.document_id}`;
  const choice = (helpful, words) => make("button", {
    type: "button", "aria-pressed": "false", "aria-label": `${words}: ${name}`, onclick: () => say(helpful).catch(report),
  }, words);
  const helped = choice(true, "Helped");
  const didNot = choice(false, "Did not help");

  async function say(helpful) {
    const chunks = [{ document_id: chunk.document_id, index: chunk.index, helpful }];
    await api.giveFeedback({ question, collection, chunks });
    helped.ariaPressed = String(helpful);
    didNot.ariaPressed = String(!helpful);
    announce(`Noted: ${name} ${helpful ? "helped" : "did not help"}.`);
  }

  return make("p", { className: "judging" }, helped, didNot);
}
