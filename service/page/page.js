/** Puts the page together. */

import * as api from "./api.js";
import { startAsking } from "./asking.js";
import { byId } from "./dom.js";
import { startLibrary } from "./library.js";
import { report } from "./notices.js";
import { startReader } from "./reader.js";

async function start() {
  byId("forget-key").onclick = () => {
    api.forgetKey();
    location.reload();
  };
  const model = await api.model();
  byId("forget-key").hidden = !api.hasKey();
  startReader();
  startAsking(model, await startLibrary(model));
  byId("model").textContent = `${model.name}, on ${model.device}`;
}

start().catch(report);
