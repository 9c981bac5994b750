/** A document's text, open at the passage that the address names: `#document=ID&chunk=NUMBER`. */

import * as api from "./api.js";
import { byId, inWords, make, quoted } from "./dom.js";
import { report } from "./notices.js";

const READ = 10_000;
/** Characters that are read before and after the passage, and again whenever more is asked for. */

/** The address at which a chunk is open. */
export const addressOf = ({ document_id: document, index: chunk }) => `#${new URLSearchParams({ document, chunk })}`;

/** Open what the address names, now and whenever it changes. */
export function startReader() {
  const reader = byId("reader");
  addEventListener("hashchange", () => open().catch(report));
  reader.onclose = () => {
    if (named()) history.replaceState(null, "", location.pathname + location.search);
  };
  byId("reader-close").onclick = () => reader.close();
  open().catch(report);
}

function named() {
  const fields = new URLSearchParams(location.hash.slice(1));
  return fields.has("document") && { id: fields.get("document"), number: fields.get("chunk") ?? "0" };
}

async function open() {
  const reader = byId("reader");
  const place = named();
  if (!place) return reader.close();
  const address = location.hash;
  const { id, number } = place;
  const [{ title, characters }, [chunk]] = await Promise.all([api.document(id), api.chunks(id, number, 1)]);
  if (!chunk) throw new api.Problem(`There is no chunk ${number} in document ${id}. Its text may have changed.`);
  const start = Math.max(0, chunk.start - READ);
  const end = Math.min(characters, chunk.end + READ);
  const characterList = Array.from(await api.text(id, start, end)); // offsets count Unicode characters
  if (location.hash !== address) return;
  const between = (from, to) => quoted(characterList.slice(from - start, to - start).join(""));
  const mark = make("mark", { tabIndex: -1 }, between(chunk.start, chunk.end));
  byId("reader-title").replaceChildren(quoted(title || id));
  byId("reader-place").replaceChildren(`chunk ${chunk.index} `, quoted(inWords(chunk.location)));
  byId("reader-text").replaceChildren(between(start, chunk.start), mark, between(chunk.end, end));
  showMore(id, start, end, characters);
  if (!reader.open) reader.showModal();
  mark.focus();
  mark.scrollIntoView({ block: "center", behavior: "instant" });
}

/** Offer what stands before and after the characters that are shown. */
function showMore(id, start, end, characters) {
  const text = byId("reader-text");
  const mark = text.querySelector("mark");
  const buttons = [byId("reader-before"), byId("reader-after")];
  const offer = (button, from, to, put) => {
    button.hidden = from >= to;
    button.onclick = async () => {
      for (const each of buttons) each.onclick = null; // until this is there: pressed again, it would be there twice
      try {
        const part = quoted(await api.text(id, from, to));
        if (!mark.isConnected) return; // another passage has been opened
        put(part);
        showMore(id, Math.min(start, from), Math.max(end, to), characters);
      } catch (error) {
        report(error);
        if (mark.isConnected) showMore(id, start, end, characters);
      }
    };
  };
  offer(buttons[0], Math.max(0, start - READ), start, (part) => text.prepend(part));
  offer(buttons[1], end, Math.min(characters, end + READ), (part) => text.append(part));
}
