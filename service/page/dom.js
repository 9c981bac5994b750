/** Building blocks. Documents are not to be trusted: what they say becomes text nodes, never markup. */

export const byId = (id) => document.getElementById(id);

/** An element with properties (or, where there is no such property, attributes) and children; strings become text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Text of a document, whose writing direction must not reach what stands around it. */
export const quoted = (text, tag = "bdi", properties = {}) => make(tag, { dir: "auto", ...properties }, text);

/** Where on a bar, or how much of it, as CSS has it. */
export const percent = (share) => `${(100 * share).toFixed(3)}%`;

export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Where in its file a chunk stands, "" where nobody knows. */
export const inWords = ({ page, label, sheet, row, headings }) => [
  (label ?? page) !== null && `page ${label ?? page}`, sheet !== null && `sheet ${sheet}`, row !== null && `row ${row}`,
  headings.join(" › "),
].filter(Boolean).join(", ");
