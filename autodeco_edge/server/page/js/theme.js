/** Light or dark: the system's, or the user's own. */

export const THEMES = { auto: "system", light: "light", dark: "dark" };

export class Theme {
  /** onChange(): colours are others now */
  constructor(settings, onChange) {
    this.settings = settings;
    this.onChange = onChange;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
    apply(settings.theme);
  }

  choose(theme) {
    this.settings.set({ theme });
    apply(theme);
    this.onChange();
  }
}

function apply(theme) {
  document.documentElement.dataset.theme = theme;
}
