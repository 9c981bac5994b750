/** What a run of questions found, and what changed since the one before. */

import { byId, count, inWords as placeInWords, make, quoted } from "./dom.js";
import { ENDINGS } from "./episode.js";
import { inWords } from "./expected.js";
import { addressOf } from "./reader.js";
import { digest } from "./runs.js";

const percentage = (share) => `${(100 * share).toFixed(1)}%`;
const dateOf = (at) => new Date(at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

byId("played-filter").onchange = filter;

/** Clear what the run before has left. */
export function showAsked() {
  for (const id of ["played-totals", "played-changes", "played-questions"]) byId(id).replaceChildren();
}

/** Show the results, with what changed since the run `before`; a run that was broken off has no `now`. */
export function showRun(results, now, before) {
  const changes = new Map();
  if (now && before) {
    for (const result of results) {
      const share = before.shares.get(digest(result));
      if (share !== undefined) changes.set(result.id, Math.sign(result.share - share));
    }
  }
  byId("played-totals").replaceChildren(...totals(results));
  byId("played-changes").hidden = now === null;
  byId("played-changes").replaceChildren(...(now ? sinceBefore(results, changes, now, before) : []));
  byId("played-questions").replaceChildren(...results.map((result, index) => entry(result, index + 1, changes.get(result.id) ?? 0)));
  byId("played-filter").value = "all";
  byId("played-filter").options[2].disabled = changes.size === 0;
  filter();
  byId("played").hidden = false;
}

function totals(results) {
  const unresolved = results.filter(({ pieces }) => pieces.some((keys) => !keys.size)).length;
  const failed = results.filter(({ error }) => error !== null).length;
  const facts = {
    "Questions": results.length.toLocaleString("en"),
    "All that was expected": percentage(mean(results.map(({ share }) => Number(share === 1)))),
    "Share of the evidence": percentage(mean(results.map(({ share }) => share))),
    "Chunks a question": mean(results.map(({ chunks }) => chunks.length)).toFixed(2),
    ...(unresolved && { "Expect what stands nowhere": count(unresolved, "question") }),
    ...(failed && { "Without an answer": count(failed, "question") }),
  };
  return Object.entries(facts).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
}

function sinceBefore(results, changes, now, before) {
  if (!before) {
    const words = "What was found is kept in this browser: the next run is compared with it.";
    return [make("p", { className: "quiet" }, words)];
  }
  const same = before.checkpoint.fingerprint === now.checkpoint.fingerprint;
  const who = same
    ? ["by the same checkpoint, ", quoted(now.checkpoint.name)]
    : ["by ", quoted(before.checkpoint.name), ", another checkpoint"];
  const when = make("time", { dateTime: before.at }, dateOf(before.at));
  const steps = before.steps === now.steps ? "" : `, of at most ${count(before.steps, "chunk")}`;
  const head = make("p", {}, "Since the last run, ", when, " ", ...who, `${steps}: `);
  const lists = [["newly found", 1], ["newly lost", -1]].map(([words, sign]) => {
    const changed = [...results.entries()].filter(([, { id }]) => changes.get(id) === sign);
    const links = changed.flatMap(([index, { id }]) =>
      [", ", make("a", { href: `#played-${index + 1}`, onclick: show }, quoted(id))]);
    const className = sign < 0 && changed.length ? "wrong" : "";
    return make("li", { className }, `${changed.length} ${words}`, ...(links.length ? [": ", ...links.slice(1)] : []));
  });
  const others = results.length - changes.size;
  const rest = others ? [make("li", {}, `${count(others, "question")} of these not asked then`)] : [];
  return [head, make("ul", {}, ...lists, ...rest)];
}

/** Open the question that a link names; the address belongs to the documents. */
function show(event) {
  event.preventDefault();
  byId("played-filter").value = "all";
  filter();
  const item = document.getElementById(event.currentTarget.hash.slice(1));
  item.querySelector("details").open = true;
  item.querySelector("summary").focus();
  item.scrollIntoView({ block: "start" });
}

function entry(result, number, change) {
  const found = result.ranks.filter(Boolean).length;
  const kind = result.share === 1 ? "all" : found ? "some" : "none";
  const share = make("span", { className: "share" }, `${found} of ${result.ranks.length}`);
  share.dataset.found = kind;
  const noted = { 1: "newly found · ", 0: "", [-1]: "newly lost · " }[change];
  const inside = make("div", { className: "inside" });
  const summary = make("summary", {}, share, quoted(result.question),
    make("span", { className: "quiet" }, noted, quoted(result.id), ` · ${ending(result)}`));
  const details = make("details", {}, summary, inside);
  details.ontoggle = () => {
    if (details.open && !inside.children.length) inside.append(...pieces(result), ...selected(result));
  };
  const item = make("li", { id: `played-${number}` }, details);
  item.dataset.missed = String(kind !== "all");
  item.dataset.changed = String(change !== 0);
  return item;
}

function ending({ answer, error, chunks }) {
  if (error !== null) return "no answer";
  const { sufficiency } = answer;
  const complete = sufficiency ? ` · complete ${(100 * sufficiency.complete).toFixed(0)}%` : "";
  return `${count(chunks.length, "chunk")} · stopped by ${answer.stopped_by}${complete}`;
}

function pieces({ answer, error, expected, pieces: keys, ranks }) {
  const why = make("p", error === null ? {} : { className: "wrong" }, error ?? ENDINGS[answer.stopped_by]);
  const items = expected.map((alternatives, number) => {
    const rank = ranks[number];
    const words = rank ? `found as chunk ${rank}: ` : keys[number].size ? "missed: " : "stands nowhere: ";
    return make("li", {}, make("span", { className: rank ? "" : "wrong" }, words), quoted(inWords(alternatives)));
  });
  return [why, make("h3", {}, "Expected"), make("ul", {}, ...items)];
}

function selected({ chunks, hits }) {
  if (!chunks.length) return [];
  const items = chunks.map((chunk, number) => {
    const title = chunk.title || chunk.document_id;
    const where = placeInWords(chunk.location);
    const open = make("a", { href: addressOf(chunk), "aria-label": `Open ${title} at chunk ${chunk.index}` }, "open");
    const head = make("p", {}, `chunk ${chunk.index} of `, quoted(title), ...(where ? [" · ", quoted(where)] : []), " · ", open,
      hits[number] ? " · expected" : "");
    return make("li", {}, head, quoted(chunk.text, "blockquote", { className: hits[number] ? "hit" : "" }));
  });
  return [make("h3", {}, "Selected"), make("ol", {}, ...items)];
}

function filter() {
  const shown = byId("played-filter").value;
  let some = false;
  for (const item of byId("played-questions").children) {
    item.hidden = shown !== "all" && item.dataset[shown] !== "true";
    some ||= !item.hidden;
  }
  byId("played-none").hidden = some;
}
