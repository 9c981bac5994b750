/** Each document as a strip, each step as a row of it: how large Q was where, and what was selected. */

import * as api from "./api.js";
import { byId, count, make, percent, quoted } from "./dom.js";
import { report } from "./notices.js";

const MOST_READ = 20;
/** Chunks shown of a place in a document. */

const LANE = 0.09;
/** Badges closer than this, as a share of the strip, are put below each other. */

/** All strips of an episode; their colours have one scale. */
export class HeatMaps {
  constructor(titleOf) {
    this.titleOf = titleOf;
    this.strips = new Map();
    this.lowest = Infinity;
    this.highest = -Infinity;
    this.others = byId("other-maps");
    this.otherList = this.others.querySelector("div");
    byId("maps").replaceChildren();
    byId("legend").replaceChildren();
    this.otherList.replaceChildren();
    this.others.hidden = true;
    this.others.open = false;
  }

  add({ step, document_id: selectedIn, index, q, chunk, heatmap }) {
    for (const heat of heatmap) {
      for (const value of heat.q) {
        if (value === null) continue;
        this.lowest = Math.min(this.lowest, value);
        this.highest = Math.max(this.highest, value);
      }
      const id = heat.document_id;
      const own = id === selectedIn;
      if (!this.strips.has(id)) {
        const title = (own && chunk.title) || this.titleOf(id);
        this.strips.set(id, new Strip(id, title, heat.chunks));
        this.otherList.append(this.strips.get(id).element);
      }
      this.strips.get(id).addRow({ step, ...heat, selected: own ? { index, q } : null });
      if (own) byId("maps").append(this.strips.get(id).element);
    }
    for (const strip of this.strips.values()) strip.paint(this.lowest, this.highest);
    this.showLegend();
    const left = this.otherList.children.length;
    this.others.hidden = left === 0;
    this.others.querySelector("summary").textContent = `${count(left, "other document")} with candidates`;
  }

  showLegend() {
    const scale = make("span", { className: "scale", "aria-hidden": "true" });
    const sample = (name) => make("span", { className: `sample ${name}`, "aria-hidden": "true" });
    byId("legend").replaceChildren(
      make("span", {}, `Q ${this.lowest.toFixed(2)} `, scale, ` ${this.highest.toFixed(2)}`),
      make("span", {}, sample("selected"), " selected at this step"),
      make("span", {}, sample("border"), " border of two intervals: selected before"),
      make("span", {}, sample("nothing"), " not scored, or selected"),
    );
  }
}

class Strip {
  constructor(id, title, chunks) {
    this.id = id;
    this.chunks = chunks;
    this.rows = [];
    this.lanes = [];
    this.badges = make("div", { className: "badges" });
    this.list = make("div", { className: "rows" });
    this.cursor = make("div", { className: "cursor", "aria-hidden": "true", hidden: true });
    this.place = make("input", {
      type: "range", min: 0, value: 0, step: 1, "aria-label": `Place in ${title}`, oninput: () => this.point(),
    });
    this.readout = make("output", { className: "quiet" }, "Move along the strip to see values.");
    this.read = make("button", { type: "button", hidden: true, onclick: () => this.readHere() }, "Read this place");
    this.passage = make("div", { className: "passage" });
    this.table = make("details", { ontoggle: () => this.fillTable() }, make("summary", {}, "The same as a table"));
    const ends = make("p", { className: "ends quiet", "aria-hidden": "true" },
      make("span", {}, "chunk 0"), make("span", {}, `${chunks - 1}`));
    const drawing = make("div", { className: "drawing" }, this.badges, this.list, this.place, ends, this.cursor);
    drawing.onpointermove = (event) => this.follow(event);
    this.element = make("section", { className: "strip", "aria-label": `Heat map of ${title}` },
      make("h4", {}, quoted(title), make("span", { className: "quiet" }, ` ${count(chunks, "chunk")}`)),
      drawing, make("p", { className: "readout" }, this.readout, this.read), this.passage, this.table);
  }

  addRow(row) {
    this.rows.push(row);
    this.place.max = row.q.length - 1;
    row.track = make("div", { className: "track" });
    for (const border of row.borders) this.mark(row.track, "border", border / this.chunks);
    if (row.selected) {
      const at = (row.selected.index + 0.5) / this.chunks;
      this.mark(row.track, "selected", at);
      this.addBadge(row.step + 1, row.selected.index, at);
    }
    this.list.append(make("div", { className: "row", "aria-hidden": "true" },
      make("span", { className: "number" }, `${row.step + 1}`), row.track));
    this.fillTable();
  }

  mark(track, name, at) {
    const mark = make("span", { className: name });
    mark.style.left = percent(at);
    track.append(mark);
  }

  addBadge(number, index, at) {
    const lane = this.lanes.findIndex((taken) => taken.every((other) => Math.abs(other - at) > LANE));
    if (lane < 0) this.lanes.push([at]);
    else this.lanes[lane].push(at);
    const badge = make("a", {
      className: "badge", href: `#span-${number}`, "aria-label": `Step ${number}: chunk ${index}, in the text`,
    }, `${number}`);
    badge.style.left = percent(at);
    badge.style.top = `${1.75 * (lane < 0 ? this.lanes.length - 1 : lane)}rem`;
    this.badges.append(badge);
    this.badges.style.height = `${1.75 * this.lanes.length}rem`;
  }

  paint(lowest, highest) {
    const range = highest - lowest || 1;
    for (const { q, track } of this.rows) {
      const colours = q.map((value, at) => {
        const colour = value === null ? "transparent"
          : `color-mix(in oklab, var(--hot) ${percent((value - lowest) / range)}, var(--cold))`;
        return `${colour} ${percent(at / q.length)} ${percent((at + 1) / q.length)}`;
      });
      track.style.backgroundImage = `linear-gradient(to right, ${colours.join(", ")}), var(--nothing)`;
    }
  }

  /** The chunks of a stretch: chunk `i` is in stretch `i * stretches // chunks`. */
  stretch(number) {
    const stretches = this.rows[0].q.length;
    const first = Math.ceil(number * this.chunks / stretches);
    return { first, last: Math.ceil((number + 1) * this.chunks / stretches) - 1 };
  }

  name(number) {
    const { first, last } = this.stretch(number);
    return first === last ? `Chunk ${first}` : `Chunks ${first} to ${last}`;
  }

  follow({ clientX }) {
    const { left, width } = this.rows[0].track.getBoundingClientRect();
    const stretches = this.rows[0].q.length;
    this.place.value = Math.floor((clientX - left) / width * stretches);
    this.point();
  }

  /** Say what the values are at the chosen place. */
  point() {
    const at = this.place.valueAsNumber;
    const values = this.rows.map(({ step, q }) => `step ${step + 1}: ${q[at] === null ? "–" : q[at].toFixed(3)}`);
    this.readout.textContent = `${this.name(at)}. Q at ${values.join(", ")}`;
    this.place.setAttribute("aria-valuetext", this.readout.textContent);
    this.read.hidden = false;
    this.cursor.hidden = false;
    this.cursor.style.setProperty("--at", (at + 0.5) / this.rows[0].q.length);
  }

  async readHere() {
    const { first, last } = this.stretch(this.place.valueAsNumber);
    try {
      const found = await api.chunks(this.id, first, Math.min(MOST_READ, last - first + 1));
      this.passage.replaceChildren(
        ...found.map(({ index, text }) => make("p", {}, make("span", { className: "quiet" }, `${index} `), quoted(text))));
    } catch (error) {
      report(error);
    }
  }

  /** Only where somebody looks: a table of many steps is large. */
  fillTable() {
    if (!this.table.open) return;
    const head = make("tr", {}, make("th", { scope: "col" }, "Chunks"),
      ...this.rows.map(({ step }) => make("th", { scope: "col" }, `Step ${step + 1}`)));
    const body = this.rows[0].q.map((_, at) => {
      const { first, last } = this.stretch(at);
      const cells = this.rows.map(({ q, selected }) => {
        const here = selected && first <= selected.index && selected.index <= last;
        return make("td", {}, q[at] === null ? "–" : q[at].toFixed(3), here ? ` (selected: ${selected.index})` : "");
      });
      return make("tr", {}, make("th", { scope: "row" }, first === last ? `${first}` : `${first}–${last}`), ...cells);
    });
    const table = make("table", {}, make("caption", {}, "The largest Q-value of each stretch at each step"),
      make("thead", {}, head), make("tbody", {}, ...body));
    const scrolled = make("div", { className: "scrolled", tabIndex: 0, role: "region", "aria-label": "Q-values" }, table);
    this.table.replaceChildren(this.table.firstElementChild, scrolled);
  }
}
