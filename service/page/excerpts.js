/** The selected chunks where they stand in their documents. */

import * as api from "./api.js";
import { byId, count, make, quoted } from "./dom.js";

const AROUND = 300;
/** Characters shown before and after each chunk. */

/** Show the chunks with the text around them, by document. */
export async function showExcerpts(chunks) {
  const byDocument = Map.groupBy(chunks, (chunk) => chunk.document_id);
  const shown = await Promise.all([...byDocument].map(([id, selected]) => excerpt(id, selected)));
  byId("excerpts").replaceChildren(...shown);
}

async function excerpt(id, chunks) {
  const inOrder = chunks.toSorted((one, other) => one.start - other.start);
  const windows = [];
  for (const chunk of inOrder) {
    const start = Math.max(0, chunk.start - AROUND);
    const end = chunk.end + AROUND;
    const last = windows.at(-1);
    if (last && start <= last.end) Object.assign(last, { end, chunks: [...last.chunks, chunk] });
    else windows.push({ start, end, chunks: [chunk] });
  }
  const element = make("article", {}, make("h4", {}, quoted(chunks[0].title || id)));
  let read = 0;
  for (const window of windows) {
    if (window.start > read) element.append(make("p", { className: "quiet" }, `… ${count(window.start - read, "character")} …`));
    element.append(make("div", { className: "excerpt" }, ...marked(await api.text(id, window.start, window.end), window)));
    read = window.end;
  }
  return element;
}

/** The text of a window, with its chunks in marks. Offsets count Unicode characters, JavaScript's strings UTF-16. */
function marked(text, { start, chunks }) {
  const characters = Array.from(text);
  const between = (from, to) => characters.slice(from - start, to - start).join("");
  const parts = [];
  let read = start;
  for (const chunk of chunks) {
    const number = chunk.step + 1;
    const badge = make("span", { className: "badge" }, make("span", { className: "unseen" }, "step "), `${number}`);
    const mark = make("mark", { id: `span-${number}`, tabIndex: -1 }, badge, quoted(between(chunk.start, chunk.end)));
    parts.push(quoted(between(read, chunk.start)), mark);
    read = chunk.end;
  }
  parts.push(quoted(between(read, start + characters.length)));
  return parts;
}
