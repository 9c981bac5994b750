/** Questions with expected passages, and the chunks that count as finding these: as `qrag eval` reads and resolves them. */

import * as api from "./api.js";

const FIELDS = ["id", "question", "collection", "expected", "answers"];
const PIECE_FIELDS = ["text", "document_id", "title", "start", "end", "page"];
const WORDS_SHOWN = 12;
const PAGE = 1000;

const BLANKS = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;
/** What counts as white space. */

/** A text with one blank for any run of white space, and none around it. */
const fold = (text) => text.split(BLANKS).filter(Boolean).join(" ");

// --- Questions

/** The questions of JSON Lines; throws a problem that names the first line that is wrong. */
export function parseQuestions(text) {
  const questions = [];
  const ids = new Set();
  for (const [index, line] of text.replace(/^\uFEFF/, "").split("\n").entries()) {
    if (!line.trim()) continue;
    const number = index + 1;
    const question = questionOf(line, number);
    if (ids.has(question.id)) throw new api.Problem(`Line ${number}: the id ${question.id} is of two questions.`);
    ids.add(question.id);
    questions.push(question);
  }
  if (!questions.length) throw new api.Problem("There is no question.");
  return questions;
}

function questionOf(line, number) {
  const wrong = (reason) => new api.Problem(`Line ${number}: ${reason}.`);
  let fields;
  try {
    fields = JSON.parse(line);
  } catch (error) {
    throw wrong(`no JSON object (${error.message})`);
  }
  if (fields === null || typeof fields !== "object" || Array.isArray(fields)) throw wrong("no JSON object");
  const unknown = Object.keys(fields).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) throw wrong(`there is no field ${unknown}, but ${FIELDS.join(", ")}`);
  if (typeof fields.question !== "string" || !fields.question.trim()) throw wrong("question has to be a text");
  if (fields.expected == null && fields.answers != null) throw wrong("it has answers alone, and here expected is needed");
  if (!Array.isArray(fields.expected) || !fields.expected.length) throw wrong("expected has to be a list of pieces");
  for (const name of ["id", "collection"]) {
    if (fields[name] != null && typeof fields[name] !== "string") throw wrong(`${name} has to be a text`);
  }
  const expected = fields.expected.map((piece) => (Array.isArray(piece) ? piece : [piece]));
  for (const alternatives of expected) {
    const reason = alternatives.length ? alternatives.map(wrongIn).find(Boolean) : "a piece without alternatives";
    if (reason) throw wrong(reason);
  }
  return { id: fields.id || String(number), question: fields.question, collection: fields.collection ?? null, expected };
}

/** Why an expected piece makes no sense, if it does not. */
function wrongIn(piece) {
  if (piece === null || typeof piece !== "object" || Array.isArray(piece)) return "a piece has to be an object";
  const unknown = Object.keys(piece).find((name) => !PIECE_FIELDS.includes(name));
  if (unknown !== undefined) return `a piece has no field ${unknown}, but ${PIECE_FIELDS.join(", ")}`;
  const { text, document_id: id, title, start, end, page } = piece;
  if ([text, id, title].some((value) => value != null && typeof value !== "string")) return "text and names are texts";
  if (text != null && !text.trim()) return "text is blank";
  if (id != null && title != null) return "name the document by document_id or by title, not both";
  if (text == null && id == null && title == null) return "give a text, or name a document by document_id or title";
  if ((start == null) !== (end == null)) return "start and end belong together";
  if (start != null && !(Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start < end)) {
    return "start and end are whole numbers, and start is smaller";
  }
  if (page != null && !Number.isInteger(page) && typeof page !== "string") return "page is a number or a text";
  if ([text, start, page].filter((value) => value != null).length > 1) return "give a text, start and end, or a page";
  return null;
}

/** What is expected, in words. */
export function inWords(alternatives) {
  return alternatives.map(({ text, document_id: id, title, start, end, page }) => {
    const place = id != null ? `document ${id}` : title != null ? `“${title}”` : "";
    if (text != null) {
      const words = fold(text).split(" ");
      const passage = words.slice(0, WORDS_SHOWN).join(" ") + (words.length > WORDS_SHOWN ? " …" : "");
      return `“${passage}”${place && ` in ${place}`}`;
    }
    if (start != null) return `${place}, characters ${start} to ${end}`;
    return page == null ? place : `${place}, page ${page}`;
  }).join(" or ");
}

// --- Documents

export const keyOf = (id, index) => JSON.stringify([id, index]);

/** Every chunk of the documents of a collection that can be searched; `progress` is told of the documents read. */
export async function readCollection(collection, signal, progress) {
  const documents = [];
  let cursor = null;
  do {
    const page = await api.documents(collection, cursor, { limit: PAGE, signal });
    for (const { id, title, chunks: count } of page.documents.filter(({ status }) => status === "ready")) {
      const chunks = [];
      while (chunks.length < count) {
        const more = await api.chunks(id, chunks.length, PAGE, signal);
        if (!more.length) break; // deleted meanwhile
        chunks.push(...more);
      }
      documents.push(new Text(id, title, chunks));
      progress(documents.length);
    }
    cursor = page.next_cursor;
  } while (cursor !== null);
  return documents;
}

/** A document's chunks, which do not overlap, and what its text is with one blank for any run of white space. */
class Text {
  constructor(id, title, chunks) {
    this.id = id;
    this.title = title;
    this.chunks = chunks;
  }

  get folded() {
    let text = "";
    let end = 0;
    const borders = this.chunks.map((chunk) => {
      if (chunk.start > end && text) text += " ";
      end = chunk.end;
      const start = text.length;
      text += fold(chunk.text);
      return { start, end: text.length };
    });
    const value = { text, borders };
    Object.defineProperty(this, "folded", { value }); // once is enough
    return value;
  }
}

/** The keys of the chunks any one of which finds a piece. */
export function targets(alternatives, documents) {
  const keys = new Set();
  for (const expected of alternatives) {
    for (const document of documents.filter((each) => isMeant(each, expected))) {
      for (const index of chunksOf(document, expected)) keys.add(keyOf(document.id, index));
    }
  }
  return keys;
}

function isMeant(document, { document_id: id, title }) {
  return id != null ? document.id === id : title == null || document.title === title;
}

function* chunksOf(document, { text, start, end, page }) {
  if (text != null) {
    const passage = fold(text);
    const { text: whole, borders } = document.folded;
    for (let at = whole.indexOf(passage); at >= 0; at = whole.indexOf(passage, at + 1)) {
      yield* holding(borders, at, at + passage.length);
    }
  } else if (start != null) {
    yield* holding(document.chunks, start, end);
  } else {
    for (const { index, location } of document.chunks) {
      if (page == null || page === (typeof page === "string" ? location.label : location.page)) yield index;
    }
  }
}

/** The chunks that share at least half of the shorter of themselves and what stands from start to end. */
function* holding(borders, start, end) {
  let low = 0;
  let high = borders.length;
  while (low < high) { // the first that ends after the start
    const middle = (low + high) >> 1;
    if (borders[middle].end <= start) low = middle + 1;
    else high = middle;
  }
  for (let index = low; index < borders.length && borders[index].start < end; index += 1) {
    const chunk = borders[index];
    const shared = Math.min(end, chunk.end) - Math.max(start, chunk.start);
    if (2 * shared >= Math.min(end - start, chunk.end - chunk.start)) yield index;
  }
}
