/** The service's API: problems become exceptions, and a key is asked for where one is needed. */

import { askForKey } from "./notices.js";

const KEY = "qrag-api-key";

/** What the service refused, in its own words. */
export class Problem extends Error {
  constructor(detail, status = 0) {
    super(detail);
    this.status = status;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

export const forgetKey = () => sessionStorage.removeItem(KEY);

let asking = null;

/** Whether there is another key to try than the one that was refused; many requests may ask this at once. */
async function otherKey(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return true;
  asking ??= askForKey(refused !== null).finally(() => { asking = null; });
  const key = await asking;
  if (key !== null) sessionStorage.setItem(KEY, key);
  return key !== null;
}

async function send(path, options = {}) {
  for (;;) {
    const headers = new Headers(options.headers);
    const key = sessionStorage.getItem(KEY);
    if (key !== null) headers.set("Authorization", `Bearer ${key}`);
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Problem("The service does not answer. Is it running?");
    }
    if (answer.ok) return answer;
    if (answer.status !== 401 || !(await otherKey(key))) throw await problemOf(answer);
  }
}

async function problemOf(answer) {
  try {
    return new Problem((await answer.json()).detail, answer.status);
  } catch {
    return new Problem(`The service answered ${answer.status}.`, answer.status);
  }
}

const asJson = (value) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(value),
});

const at = (id) => `documents/${encodeURIComponent(id)}`;

export const model = async () => (await send("model")).json();

export const collections = async () => (await (await send("collections")).json()).collections;

export async function documents(collection, cursor, { limit, signal } = {}) {
  const query = new URLSearchParams({ collection, ...(cursor && { cursor }), ...(limit && { limit }) });
  return (await send(`documents?${query}`, { signal })).json();
}

export const document = async (id) => (await send(at(id))).json();

export const retry = async (id) => (await send(`${at(id)}/retry`, { method: "POST" })).json();

export const remove = (id) => send(at(id), { method: "DELETE" });

export const giveFeedback = async (fields) => (await send("feedback", asJson(fields))).json();

export const addText = async (fields) => (await send("documents", asJson(fields))).json();

export async function addFile(file, fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  body.append("file", file);
  return (await send("documents", { method: "POST", body })).json();
}

/** Characters `start <= i < end` of a document, counted in Unicode characters. */
export async function text(id, start, end) {
  const answer = await send(`${at(id)}/text?start=${start}&end=${end}`);
  // The answer's own text() leaves out a byte order mark at the beginning, which counts like any other character.
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await answer.arrayBuffer());
}

export const chunks = async (id, first, limit, signal) =>
  (await (await send(`${at(id)}/chunks?cursor=${first}&limit=${limit}`, { signal })).json()).chunks;

/** A retrieval whose answer comes at once. */
export const retrieveAtOnce = async (question, signal) =>
  (await send("retrieve", { ...asJson(question), signal })).json();

/** The events of a retrieval as they come: names and values. */
export async function* retrieve(question, signal) {
  const request = asJson(question);
  request.headers.Accept = "text/event-stream";
  const answer = await send("retrieve", { ...request, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let received = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Problem("The answer broke off. Ask again.");
    received += value;
    const complete = received.split("\n\n");
    received = complete.pop();
    for (const event of complete) {
      if (event.startsWith(":")) continue; // a comment, which keeps the connection alive
      const [name, data] = event.split("\n").map((line) => line.slice(line.indexOf(": ") + 2));
      const content = JSON.parse(data);
      if (name === "error") throw new Problem(content.detail, content.status);
      yield [name, content];
      if (name === "result") return;
    }
  }
}
