(() => {
  const root = document.documentElement;
  try { root.dataset.theme = localStorage.getItem("rclib-theme") || "auto"; }
  catch (error) { root.dataset.theme = "auto"; }
  document.addEventListener("DOMContentLoaded", () => {
    const script = document.createElement("script");
    script.src = `${root.dataset.root}assets/site.js`;
    document.head.append(script);
  });
})();
