/* Filter of the front page and the choice of colours. Everything is readable without it. */
"use strict";

(function theme() {
  const button = document.querySelector("button.theme");
  const choices = ["auto", "light", "dark"];
  const root = document.documentElement;
  function show() { button.querySelector("span").textContent = root.dataset.theme; }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = choices[(choices.indexOf(root.dataset.theme) + 1) % choices.length];
    try { localStorage.setItem("rclib-theme", root.dataset.theme); } catch (error) { /* a remark */ }
    show();
  });
  show();
})();

(function filter() {
  const form = document.getElementById("filter");
  if (!form) return;
  const cards = [...document.querySelectorAll(".card")];
  const rows = [...document.querySelectorAll("#scoreboard .claims tbody tr")];
  const groups = [...document.querySelectorAll(".group")];
  const shown = document.getElementById("shown");

  function apply() {
    const paper = form.elements.paper.value;
    const verdict = form.elements.verdict.value;
    const fits = (item) =>
      (!paper || item.dataset.paper === paper) &&
      (!verdict || item.dataset.verdicts.split(" ").includes(verdict));
    for (const item of [...cards, ...rows]) item.hidden = !fits(item);
    for (const group of groups)
      group.hidden = !group.querySelector(".card:not([hidden]), tbody tr:not([hidden])");
    const count = (items) => items.filter((item) => !item.hidden).length;
    shown.textContent =
      `${count(cards)} of ${cards.length} figures, ${count(rows)} of ${rows.length} claims`;
  }

  function restore() {
    const wanted = new URLSearchParams(location.hash.replace(/^#\??/, ""));
    for (const name of ["paper", "verdict"]) {
      const value = wanted.get(name);
      const inputs = [...form.querySelectorAll(`input[name=${name}]`)];
      const input = inputs.find((candidate) => candidate.value === value);
      if (input) input.checked = true;
    }
  }

  // On a phone the claims of a notebook open on demand; together they are very long.
  if (matchMedia("(max-width: 46rem)").matches)
    for (const group of document.querySelectorAll("details.group")) group.open = false;
  form.hidden = false;
  restore();
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    apply();
    const state = new URLSearchParams(new FormData(form));
    for (const [name, value] of [...state]) if (!value) state.delete(name);
    try { history.replaceState(null, "", state.size ? `#?${state}` : location.pathname); }
    catch (error) { /* some browsers refuse this for files */ }
  });
  apply();
})();
