/** Puts the page together. */

import * as api from "./api.js";
import { startAsking } from "./asking.js";
import { byId } from "./dom.js";
import { startLibrary } from "./library.js";
import { report } from "./notices.js";
import { startQuestions } from "./questions.js";
import { startReader } from "./reader.js";
import { startTabs } from "./tabs.js";

async function start() {
  byId("forget-key").onclick = () => {
    api.forgetKey();
    location.reload();
  };
  startTabs(["ask-tab", "questions-tab"]);
  // A key that may not read is refused, and has to be forgotten too.
  const model = await api.model().finally(() => { byId("forget-key").hidden = !api.hasKey(); });
  startReader();
  const library = await startLibrary(model);
  startAsking(model, library);
  startQuestions(model, library);
  byId("model").textContent = `${model.name}, on ${model.device}`;
}

start().catch(report);
