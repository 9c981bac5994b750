/** What the page tells, and what it asks back. */

import { byId } from "./dom.js";

/** Show what went wrong until it is closed or something else does. */
export function report(error) {
  byId("alert-text").textContent = error.message;
  byId("alert").hidden = false;
}

export function clearReport() {
  byId("alert").hidden = true;
  byId("alert-text").textContent = "";
}

/** Tell those who listen; those who see have it on the page anyway. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Ask before something is gone for good. */
export function confirmed(...question) {
  const dialog = byId("confirm");
  byId("confirm-text").replaceChildren(...question);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Ask for an API key; none if the reader gives none. `wrong` says that the last one was refused. */
export function askForKey(wrong) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  input.value = "";
  byId("key-wrong").textContent = wrong ? "The service does not know this key." : "";
  dialog.showModal();
  return new Promise((resolve) => {
    let given = null;
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      given = input.value;
      dialog.close();
    };
    byId("key-cancel").onclick = () => dialog.close();
    dialog.addEventListener("close", () => {
      input.value = "";
      resolve(given);
    }, { once: true });
  });
}

byId("alert-close").onclick = clearReport;
