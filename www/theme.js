// Runs before the page is drawn, so that a chosen theme does not flash: a plain script, not a module.

(() => {
  try {
    const theme = localStorage.getItem("phi3-steer.theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is blocked: the system's theme is used.
  }
})();
