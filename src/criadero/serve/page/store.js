// What outlives a reload: the conversation and the settings in localStorage, the API key in sessionStorage only.
// Entry points: load, save, loadKey, saveKey. A browser that forbids storage still gets a working page.

const PREFIX = "criadero.";

/** Return what was saved under `name`, or `fallback` where that is nothing, or of another type. */
export function load(name, fallback) {
  try {
    const value = JSON.parse(localStorage.getItem(PREFIX + name));
    const same = typeof value === typeof fallback && Array.isArray(value) === Array.isArray(fallback);
    return value !== null && same ? value : fallback;
  } catch {
    return fallback;
  }
}

/** Keep `value` under `name`. Return false where the browser did not let us: storage is full or forbidden. */
export function save(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Return the messages of the last visit; anything that is no message is left out. */
export function loadMessages() {
  const right = (one) => one && ["user", "assistant"].includes(one.role) && typeof one.content === "string";
  return load("messages", []).filter(right);
}

let key = null; // where sessionStorage is forbidden, for as long as the page is open

export function loadKey() {
  try {
    return key ?? sessionStorage.getItem(PREFIX + "key") ?? "";
  } catch {
    return key ?? "";
  }
}

export function saveKey(value) {
  key = value;
  try {
    sessionStorage.setItem(PREFIX + "key", value);
  } catch {
    // Kept in memory above.
  }
}
