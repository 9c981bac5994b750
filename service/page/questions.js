/** The tab of questions with expected passages: asked one after the other, and compared with the last time. */

import * as api from "./api.js";
import { byId, count } from "./dom.js";
import { keyOf, parseQuestions, readCollection, targets } from "./expected.js";
import { announce, clearReport, report } from "./notices.js";
import { lastRun, remember } from "./runs.js";
import { showAsked, showRun } from "./findings.js";

const REFUSED = [404, 409, 422];
/** Refusals of one question, after which the others are asked. */

/** Take questions; `library` says where to look. */
export function startQuestions(model, library) {
  byId("play-steps").max = model.max_steps;
  let running = null;
  byId("play-cancel").onclick = () => running?.abort();
  byId("play-file").onchange = async () => {
    const [file] = byId("play-file").files;
    if (file) byId("play-lines").value = await file.text();
  };
  byId("play").onsubmit = async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    byId("play-cancel").hidden = false;
    try {
      await run(library.collection(), running.signal);
    } catch (error) {
      if (error.name === "AbortError") tell("Cancelled.");
      else report(error);
    } finally {
      running = null;
      byId("play-cancel").hidden = true;
      byId("play-progress").hidden = true;
    }
  };
}

function tell(text) {
  byId("play-state").textContent = text;
  announce(text);
}

async function run(collection, signal) {
  clearReport();
  byId("play-state").textContent = "";
  byId("played").hidden = true;
  const questions = parseQuestions(byId("play-lines").value);
  const steps = byId("play-steps").valueAsNumber;
  const { name, fingerprint } = await api.model();
  const asked = await resolved(questions, collection, signal);
  const results = [];
  tell(`Asking ${count(asked.length, "question")}.`);
  byId("play-progress").max = asked.length;
  byId("play-progress").value = 0;
  byId("play-progress").hidden = false;
  showAsked();
  try {
    for (const each of asked) {
      results.push(await play(each, steps, signal));
      byId("play-progress").value = results.length;
      byId("play-state").textContent = `${results.length} of ${count(asked.length, "question")} asked.`;
    }
  } catch (error) {
    if (results.length) showRun(results, null, null);
    throw error;
  }
  const now = { at: new Date().toISOString(), checkpoint: { name, fingerprint }, steps };
  const before = lastRun(collection);
  showRun(results, now, before);
  remember(collection, now, results);
  const complete = results.filter(({ share }) => share === 1).length;
  tell(`Done. ${complete} of ${count(results.length, "question")} with all that was expected.`);
  byId("played-title").focus();
}

/** The questions with their targets; each collection is read once. */
async function resolved(questions, collection, signal) {
  const texts = new Map();
  for (const name of new Set(questions.map((question) => question.collection ?? collection))) {
    tell(`Reading the documents of ${name}.`);
    texts.set(name, await readCollection(name, signal, (documents) => {
      byId("play-state").textContent = `Reading the documents of ${name}: ${documents} so far.`;
    }));
  }
  return questions.map((question) => {
    const where = question.collection ?? collection;
    return { ...question, where, pieces: question.expected.map((piece) => targets(piece, texts.get(where))) };
  });
}

/** What the service finds for a question: for each piece the rank of the chunk that finds it, from 1, or none. */
async function play(asked, steps, signal) {
  const request = { question: asked.question, collection: asked.where, max_steps: steps, order: "selection" };
  let answer = null;
  let error = null;
  try {
    answer = await api.retrieveAtOnce(request, signal);
  } catch (problem) {
    if (!REFUSED.includes(problem.status)) throw problem;
    error = problem.message;
  }
  const chunks = answer?.chunks ?? [];
  const ranks = asked.pieces.map((keys) =>
    1 + chunks.findIndex(({ document_id: id, index }) => keys.has(keyOf(id, index))) || null);
  const share = ranks.filter(Boolean).length / ranks.length;
  return {
    ...asked, answer, error, chunks, ranks, share,
    hits: chunks.map(({ document_id: id, index }) => asked.pieces.some((keys) => keys.has(keyOf(id, index)))),
  };
}
