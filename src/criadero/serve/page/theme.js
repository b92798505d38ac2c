// Light or dark, before anything is drawn: loaded by <head> and not deferred, so that the page never flashes.
// Without a choice of the user the system's scheme holds. settings.js switches.
"use strict";
try {
  const theme = localStorage.getItem("criadero.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden; then the system's scheme holds.
}
