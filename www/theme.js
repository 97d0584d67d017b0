// Runs before the page is drawn, so that a chosen theme does not flash: a plain script, not a module.
// It also gives the browser's own bars the page's colour, whenever the theme changes.

(() => {
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem("phi3-steer.theme");
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  } catch {
    // Storage is blocked: the system's theme is used.
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  const colour = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    document.querySelector('meta[name="theme-color"]')?.setAttribute("content", dark ? "#151514" : "#faf9f6");
  };
  new MutationObserver(colour).observe(root, { attributeFilter: ["data-theme"] });
  system.addEventListener("change", colour);
  colour();
})();
