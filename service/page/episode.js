/** What an episode did and found. */

import * as api from "./api.js";
import { byId, count, inWords, make, percent, quoted } from "./dom.js";
import { judging } from "./feedback.js";
import { HeatMaps } from "./heatmaps.js";
import { report } from "./notices.js";
import { addressOf } from "./reader.js";

export const ENDINGS = {
  budget: "As many chunks as were allowed are selected.",
  threshold: "No chunk was left that adds enough: the largest Q-value fell below the threshold.",
  action: "Stopping was worth more than any further chunk.",
  sufficiency: "Going on was not likely enough to complete the evidence.",
  sufficient: "The evidence is most likely complete.",
  hopeless: "What is missing can most likely not be found here.",
  context: "The best chunk did not fit into the context any more.",
  exhausted: "There was no chunk left to select.",
};

let latest = null;

/** One episode; it takes the place of the one that was shown before. Where the service takes `feedback`, chunks are judged. */
export class Episode {
  constructor(question, titleOf, feedback) {
    latest = this;
    this.judging = (chunk) => (feedback ? [judging(question, chunk)] : []);
    this.titleOf = titleOf;
    this.most = question.max_steps;
    this.maps = new HeatMaps(titleOf);
    this.steps = [];
    this.bars = [];
    byId("request").textContent = `POST /retrieve\n${JSON.stringify(question, null, 2)}`;
    byId("outcome").textContent = "Searching…";
    byId("episode").setAttribute("aria-busy", "true");
    for (const id of ["sufficiency", "steps", "excerpts"]) byId(id).replaceChildren();
    byId("after").hidden = true;
    byId("episode").hidden = false;
    byId("copied").textContent = "";
  }

  /** A step says how sufficient the chunks *before* it are, so its own bars are known with the next one. */
  addStep(step) {
    if (this.steps.length) this.show(step.sufficiency);
    const bars = make("div");
    const place = make("a", { href: `#span-${step.step + 1}` }, `chunk ${step.index}`);
    const where = inWords(step.chunk.location);
    const title = step.chunk.title || step.document_id;
    const name = `Open ${title} at chunk ${step.index}`;
    const open = make("a", { className: "open", href: addressOf(step), "aria-label": name }, "open");
    const head = make("p", {}, place, " of ", quoted(title), ...(where ? [" · ", quoted(where)] : []),
      ` · Q ${step.q.toFixed(3)} · `, open);
    byId("steps").append(make("li", {}, head, quoted(step.chunk.text, "blockquote"), ...this.judging(step.chunk),
      ...partsOf(step), bars));
    this.steps.push(step);
    this.bars.push(bars);
    this.maps.add(step);
    byId("outcome").textContent = `Searching… ${count(this.steps.length, "chunk")} so far.`;
  }

  finish(result) {
    byId("episode").removeAttribute("aria-busy");
    if (this.steps.length) this.show(result.sufficiency);
    byId("outcome").textContent = `${count(result.chunks.length, "chunk")}. ${ENDINGS[result.stopped_by]}`;
    byId("sufficiency").replaceChildren(...sufficiencyBars(result.sufficiency));
    byId("context").textContent = result.context;
    byId("copy").onclick = () => copy(result.context);
    byId("timings").replaceChildren(...facts(result));
    byId("one-step").replaceChildren();
    byId("one-step-details").open = false;
    byId("one-step-details").ontoggle = () => this.showOneStep(result).catch(report);
    byId("after").hidden = false;
  }

  /** Its candidates come without their texts, so these are asked for when somebody looks. */
  async showOneStep({ one_step: candidates }) {
    if (!byId("one-step-details").open || byId("one-step").children.length) return;
    const items = candidates.slice(0, this.most).map(async ({ document_id: id, index }) => {
      const [chunk] = await api.chunks(id, index, 1);
      const selected = this.steps.some((step) => step.document_id === id && step.index === index);
      const head = make("p", {}, `chunk ${index} of `, quoted(this.titleOf(id)), selected ? " · selected above, too" : "");
      return make("li", {}, head, quoted(chunk.text, "blockquote"));
    });
    const found = await Promise.all(items);
    if (latest === this) byId("one-step").replaceChildren(...found);
  }

  breakOff() {
    byId("episode").removeAttribute("aria-busy");
    byId("outcome").textContent = "Broken off.";
  }

  show(sufficiency) {
    this.bars.at(-1).replaceChildren(...sufficiencyBars(sufficiency));
  }
}

const SHOWN_TERMS = 6;

/** What a step's Q is made of, without what is the same for all chunks. */
function partsOf({ parts }) {
  if (!parts) return [];
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
  const order = parts.spread > 0.0005 ? ` · order ${signed(parts.order)} (of ${parts.spread.toFixed(3)})` : "";
  const terms = parts.terms.slice(0, SHOWN_TERMS).flatMap(({ token, q }) => [" · ", quoted(token), ` ${signed(q)}`]);
  const beside = Math.abs(parts.surroundings) > 0.0005 ? [` · what stands beside it ${signed(parts.surroundings)}`] : [];
  return [make("p", { className: "parts" }, `meaning ${signed(parts.meaning)}${order}`, ...terms, ...beside)];
}

function sufficiencyBars(sufficiency) {
  if (!sufficiency) return [];
  const bars = ["complete", "hopeless"].map((name) => {
    const filled = make("span", { className: "filled" });
    filled.style.width = percent(sufficiency[name]);
    const track = make("span", { className: "bar", "aria-hidden": "true" }, filled);
    return make("span", { className: name }, `${name} `, track, ` ${(100 * sufficiency[name]).toFixed(0)}%`);
  });
  return [make("p", { className: "probabilities" }, ...bars)];
}

function facts({ timings, usage, model }) {
  const milliseconds = (value) => `${value.toFixed(1)} ms`;
  const all = {
    "In all": milliseconds(timings.total_ms),
    "Reading the states": milliseconds(timings.encode_ms),
    "Searching": milliseconds(timings.search_ms),
    "Waiting": milliseconds(timings.queue_ms),
    "Searched at each step": `${count(usage.candidates, "chunk")}${usage.exact ? "" : ", approximately"}`,
    "Context": count(usage.context_tokens, "token"),
    "Model": model,
  };
  return Object.entries(all).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    byId("copied").textContent = "Copied.";
  } catch { // not allowed, or no secure context: let the reader copy it
    getSelection().selectAllChildren(byId("context"));
    byId("copied").textContent = "It is selected: press Ctrl+C, or ⌘C.";
  }
}
