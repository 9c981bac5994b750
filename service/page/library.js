/** The documents of a collection: upload, watch, delete. */

import * as api from "./api.js";
import { byId, count, make, quoted } from "./dom.js";
import { announce, clearReport, confirmed, report } from "./notices.js";

const POLL_MILLISECONDS = 400;
const POLL_AFTER_FAILURE_MILLISECONDS = 5000;

const POLLED = 10;
/** Documents asked about at once: they are indexed in order, so the others can wait. */

const entries = new Map();
const wanted = new URLSearchParams(location.search).get("collection");
let collection = wanted || "default";
let cursor = null;
let polling = false;

/** Show the documents; returns what others need to know of them. */
export async function startLibrary(model) {
  byId("collection").onchange = () => choose(byId("collection").value).catch(report);
  byId("new-collection").onsubmit = makeCollection;
  byId("more-documents").onclick = () => showMore().catch(report);
  byId("paste").onsubmit = addPasted;
  byId("files").onchange = async () => {
    await addFiles([...byId("files").files], model.max_body_bytes);
    byId("files").value = "";
  };
  takeDropped((files) => addFiles(files, model.max_body_bytes));
  const known = (await api.collections()).map(({ name }) => name);
  // Where that cannot be looked at, another can be chosen.
  await choose(wanted || known.length === 0 || known.includes(collection) ? collection : known[0]).catch(report);
  return { collection: () => collection, titleOf };
}

const titleOf = (id) => entries.get(id)?.title ?? id;

// --- Collections

async function choose(name) {
  collection = name;
  const address = new URL(location);
  address.searchParams.set("collection", name);
  history.replaceState(null, "", address);
  entries.clear();
  byId("documents").replaceChildren();
  cursor = null;
  await Promise.all([showCollections(), showMore()]);
  byId("adding").open = entries.size === 0;
}

async function showCollections() {
  const found = await api.collections();
  if (!found.some(({ name }) => name === collection)) found.push({ name: collection, documents: 0 });
  const options = found.map(({ name, documents }) =>
    make("option", { value: name, selected: name === collection }, `${name} (${count(documents, "document")})`));
  byId("collection").replaceChildren(...options);
}

function makeCollection(event) {
  event.preventDefault();
  const name = byId("collection-name").value;
  byId("collection-name").value = "";
  announce(`Collection ${name} is there once it has a document.`);
  choose(name).catch(report);
}

// --- Adding

const description = () => ({ collection, chunking: byId("chunking").value });

async function addPasted(event) {
  event.preventDefault();
  clearReport();
  const title = byId("paste-title").value;
  const { chunking, ...fields } = description();
  try {
    const added = await api.addText({
      text: byId("paste-text").value, chunking: { mode: chunking }, ...fields, ...(title && { title }),
    });
    byId("paste").reset();
    show(added, "first");
  } catch (error) {
    report(error);
  }
}

/** One after the other, so that one that is refused does not keep the others out. */
async function addFiles(files, mostBytes) {
  clearReport();
  const fields = description();
  for (const file of files) {
    try {
      if (file.size > mostBytes) throw new api.Problem(`${file.name} is larger than ${count(mostBytes, "byte")}.`);
      announce(`Uploading ${file.name}.`);
      show(await api.addFile(file, fields), "first");
    } catch (error) {
      report(new api.Problem(`${file.name}: ${error.message}`));
    }
  }
}

function takeDropped(take) {
  const over = (there) => document.body.classList.toggle("dragging", there);
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => over(event.relatedTarget !== null));
  addEventListener("drop", (event) => {
    over(false);
    if (!hasFiles(event)) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
}

// --- The list

async function showMore() {
  const asked = collection;
  const page = await api.documents(asked, cursor);
  if (asked !== collection) return;
  for (const found of page.documents) show(found);
  cursor = page.next_cursor;
  byId("more-documents").hidden = cursor === null;
  noteEmpty();
}

const noteEmpty = () => { byId("no-documents").hidden = entries.size > 0; };

function show(found, place) {
  if (found.collection !== collection) return;
  let entry = entries.get(found.id);
  if (!entry) {
    entry = new Entry(found);
    entries.set(found.id, entry);
    if (place === "first") byId("documents").prepend(entry.element);
    else byId("documents").append(entry.element);
  }
  entry.update(found);
  noteEmpty();
  if (!entry.finished) poll();
}

/** One document in the list. */
class Entry {
  constructor({ id, title }) {
    this.id = id;
    this.title = title || id;
    this.facts = make("p", { className: "quiet" });
    this.progress = make("progress", { max: 1, "aria-label": `Indexing ${this.title}` });
    this.retry = make("button", { type: "button", onclick: () => this.again() }, "Try again");
    const remove = make("button", { type: "button", "aria-label": `Delete ${this.title}` }, "Delete");
    remove.onclick = () => this.remove();
    const head = make("div", { className: "head" }, quoted(this.title, "bdi", { className: "title" }), this.retry, remove);
    this.warnings = make("ul", { className: "quiet", "aria-label": `Left out of ${this.title}` });
    this.element = make("li", {}, head, this.facts, this.warnings, this.progress);
  }

  get finished() {
    return this.status === "ready" || this.status === "failed";
  }

  update({ chunks, tokens, characters, warnings, replacement, ...own }) {
    const { status, progress, error } = replacement ?? own;
    const before = this.status;
    this.status = status;
    this.progress.hidden = this.finished;
    this.progress.value = progress;
    this.retry.hidden = status !== "failed";
    this.element.dataset.status = status;
    const size = chunks === null ? count(characters, "character") : `${count(chunks, "chunk")}, ${count(tokens, "token")}`;
    const state = {
      queued: "Waiting", indexing: `Indexing, ${Math.floor(100 * progress)}%`, ready: "Ready", failed: `Failed. ${error}`,
    }[status] + (replacement ? ". The former text is still searched" : "");
    this.facts.textContent = `${state} · ${size}`;
    this.warnings.hidden = !warnings.length;
    this.warnings.replaceChildren(...warnings.map((warning) => quoted(warning, "li")));
    const quarter = Math.floor(4 * progress);
    if (before && (status !== before || (quarter !== this.quarter && !this.finished))) announce(`${this.title}: ${state}`);
    this.quarter = quarter;
  }

  async again() {
    try {
      show(await api.retry(this.id));
    } catch (error) {
      report(error);
    }
  }

  async remove() {
    if (!(await confirmed("Delete ", quoted(this.title), "? Its text and vectors will be gone."))) return;
    try {
      await api.remove(this.id);
    } catch (error) {
      if (error.status !== 404) return report(error);
    }
    this.drop();
    announce(`${this.title} is deleted.`);
    byId("library-title").focus();
    showCollections().catch(report);
  }

  drop() {
    if (entries.get(this.id) === this) entries.delete(this.id);
    this.element.remove();
    noteEmpty();
  }
}

/** Ask how far the unfinished are, until none is left. */
async function poll() {
  if (polling) return;
  polling = true;
  for (;;) {
    const waiting = [...entries.values()].filter((entry) => !entry.finished).slice(0, POLLED);
    if (!waiting.length) break;
    let pause = POLL_MILLISECONDS;
    for (const entry of waiting) {
      try {
        entry.update(await api.document(entry.id));
      } catch (error) {
        if (error.status === 404) entry.drop();
        else {
          report(error);
          pause = POLL_AFTER_FAILURE_MILLISECONDS;
        }
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  polling = false;
  showCollections().catch(report);
}
