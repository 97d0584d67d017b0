// The button that changes between the light and the dark theme.

import { icon } from "./dom.js";

/** @param {HTMLButtonElement} button */
export function startTheme(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const draw = () => {
    const label = isDark() ? "Light theme" : "Dark theme";
    button.replaceChildren(icon(isDark() ? "sun" : "moon"));
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("phi3-steer.theme", root.dataset.theme);
    } catch {
      // Storage is blocked: the theme lasts as long as the page.
    }
    draw();
  });
  system.addEventListener("change", draw);
  draw();
}
