// Light or dark: as the viewer's system has it, or as the viewer chose.

import { byId } from "./dom.js";
import { chosen, remember } from "./prefs.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");
const THEMES = ["system", "light", "dark"];

/** Sets the page's theme, now and whenever it changes; `onChange` is called then. */
export function followTheme(onChange) {
  const field = byId("theme");
  field.value = THEMES.includes(chosen("theme", "system")) ? chosen("theme", "system") : "system";
  const set = () => {
    const dark = field.value === "system" ? DARK.matches : field.value === "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  const change = () => {
    set();
    onChange();
  };
  set();
  DARK.addEventListener("change", change);
  field.addEventListener("change", () => {
    remember("theme", field.value);
    change();
  });
}
