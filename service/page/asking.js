/** The question: its options, and the answer as it comes. */

import * as api from "./api.js";
import { byId } from "./dom.js";
import { Episode } from "./episode.js";
import { showExcerpts } from "./excerpts.js";
import { announce, clearReport, report } from "./notices.js";

const STRETCHES = 256;

/** Take questions; `library` says where to look. */
export function startAsking(model, library) {
  byId("max-steps").max = model.max_steps;
  byId("beam-width").max = model.max_beam_width;
  const { stopping } = model;
  for (const option of byId("stop").options) {
    if (!stopping && ["step_cost", "target_recall"].includes(option.value)) option.disabled = true;
  }
  byId("stop").onchange = showWish;
  showWish();
  let running = null;
  byId("cancel").onclick = () => running?.abort();
  byId("ask").onsubmit = async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    byId("cancel").hidden = false;
    try {
      await ask(model, library, running.signal);
    } catch (error) {
      if (error.name === "AbortError") announce("Cancelled.");
      else report(error);
    } finally {
      running = null;
      byId("cancel").hidden = true;
    }
  };
}

/** Show the number that belongs to the chosen way of stopping. */
function showWish() {
  for (const wish of ["step_cost", "target_recall"]) {
    const name = wish.replace("_", "-");
    const chosen = byId("stop").value === wish;
    byId(`${name}-field`).hidden = !chosen;
    byId(name).disabled = !chosen;
  }
}

function stop() {
  const wish = byId("stop").value;
  if (wish === "") return {};
  if (wish === "budget") return { rule: "budget" };
  return { [wish]: byId(wish.replace("_", "-")).valueAsNumber };
}

async function ask(model, library, signal) {
  clearReport();
  const question = {
    question: byId("question").value,
    collection: library.collection(),
    max_steps: byId("max-steps").valueAsNumber,
    beam_width: byId("beam-width").valueAsNumber,
    stop: stop(),
    trace: true,
    heatmap: STRETCHES,
  };
  const episode = new Episode(question, library.titleOf, model.feedback);
  announce("Searching.");
  let selected = [];
  try {
    for await (const [name, content] of api.retrieve(question, signal)) {
      if (name === "step") {
        episode.addStep(content);
        announce(`Step ${content.step + 1}: chunk ${content.index} of ${content.chunk.title || content.document_id}.`);
      } else {
        episode.finish(content);
        announce(`Done. ${byId("outcome").textContent}`);
        selected = content.chunks;
      }
    }
  } catch (error) {
    episode.breakOff();
    throw error;
  }
  await showExcerpts(selected);
}
