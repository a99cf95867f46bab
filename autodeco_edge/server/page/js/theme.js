/** Light or dark: the system's, or the user's own. */

import { byId } from "./dom.js";

export function followTheme(settings, onChange) {
  const choice = byId("theme");
  choice.value = settings.theme;
  choice.addEventListener("change", () => {
    settings.set({ theme: choice.value });
    apply(choice.value);
    onChange();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  apply(settings.theme);
}

function apply(theme) {
  document.documentElement.dataset.theme = theme;
}
