// The settings dialog, the dialog that asks for a key, and the switch between light and dark.
// Entry points: `settings()` for what goes into a request, `wire()` once, `askKey()` when the server answers 401.

import { load, save, saveKey } from "./store.js";

const FIELDS = ["system", "temperature", "top_p", "max_tokens", "seed"];
const START = { system: "", temperature: "0.8", top_p: "0.95", max_tokens: "", seed: "" };
const byId = (id) => document.getElementById(id);

/** Return {system, sampling}: the instruction, and the fields of a request that are set. */
export function settings() {
  const values = { ...START, ...load("settings", {}) };
  const sampling = {};
  for (const name of FIELDS.slice(1)) {
    const number = Number(values[name]);
    if (String(values[name]).trim() !== "" && Number.isFinite(number)) sampling[name] = number;
  }
  return { system: String(values.system).trim(), sampling };
}

/** Connect the buttons of the header with the dialogs. */
export function wire() {
  const dialog = byId("settings");
  byId("open-settings").addEventListener("click", () => {
    fill();
    dialog.showModal();
  });
  byId("close-settings").addEventListener("click", () => dialog.close());
  byId("reset-settings").addEventListener("click", () => {
    save("settings", {});
    fill();
  });
  dialog.addEventListener("input", keep);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  byId("theme").addEventListener("click", switchTheme);
}

function fill() {
  const values = { ...START, ...load("settings", {}) };
  for (const name of FIELDS) byId(name).value = values[name];
}

/** Keep what is right at once; a wrong number is marked by the browser and the last right one stays. */
function keep() {
  const values = { ...START, ...load("settings", {}) };
  for (const name of FIELDS) if (byId(name).reportValidity()) values[name] = byId(name).value;
  save("settings", values);
}

function switchTheme() {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--scheme").trim() === "dark";
  const theme = dark ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("criadero.theme", theme);
  } catch {
    // It holds until the page is left.
  }
}

/** Ask for the API key; resolve to true when one was given. */
export function askKey() {
  const dialog = byId("key-dialog");
  const field = byId("key");
  field.value = "";
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    const give = (event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      saveKey(field.value.trim());
      dialog.close("given");
    };
    const form = byId("key-form");
    const cancel = () => dialog.close();
    form.addEventListener("submit", give);
    byId("cancel-key").addEventListener("click", cancel, { once: true });
    dialog.addEventListener("close", () => {
      form.removeEventListener("submit", give);
      resolve(dialog.returnValue === "given");
    }, { once: true });
  });
}
