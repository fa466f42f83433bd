/* Colours, search and the filter of claims. Everything is readable without it; nothing is asked
   of a network. */
"use strict";

const plain = (text) => text.normalize("NFD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
const wordsOf = (text) => plain(text).split(/\s+/).filter(Boolean);

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

(function search() {
  const form = document.querySelector("form.search");
  const input = form.querySelector("input");
  const panel = form.querySelector(".hits");
  const list = panel.querySelector("ul");
  const root = document.documentElement.dataset.root;
  const MOST = 20;
  let entries = null;

  function load() {
    if (entries) return;
    entries = [];
    const script = document.createElement("script");
    script.src = `${root}assets/search-index.js`;
    script.addEventListener("load", () => {
      entries = window.rclibIndex.map((entry) => ({
        entry, title: plain(entry[1]), all: plain(entry.join(" ")),
      }));
      show();
    });
    document.head.append(script);
  }

  // All words must occur; words in the title count more, and so does what is met first in the
  // index: series, papers, notebooks, figures, claims.
  function found(words) {
    const score = (item) => words.filter((word) => item.title.includes(word)).length;
    return entries
      .filter((item) => words.every((word) => item.all.includes(word)))
      .map((item, place) => [score(item), place, item.entry])
      .sort((a, b) => b[0] - a[0] || a[1] - b[1])
      .map((row) => row[2]);
  }

  function line([kind, title, about, address]) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = root + address;
    for (const [name, text] of [["kind", kind], ["title", title], ["about", about]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      link.append(part);
    }
    item.append(link);
    return item;
  }

  function show() {
    const words = wordsOf(input.value);
    panel.hidden = !words.length;
    if (panel.hidden) return;
    const hits = found(words);
    list.replaceChildren(...hits.slice(0, MOST).map(line));
    panel.querySelector("p").textContent =
      hits.length > MOST ? `${MOST} of ${hits.length} found` : `${hits.length || "Nothing"} found`;
  }

  function move(step) {
    const stops = [input, ...list.querySelectorAll("a")];
    const place = stops.indexOf(document.activeElement);
    stops[(place + step + stops.length) % stops.length].focus();
  }

  form.hidden = false;
  input.addEventListener("focus", load);
  input.addEventListener("input", () => { load(); show(); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const first = list.querySelector("a");
    if (first && !panel.hidden) first.click();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { panel.hidden = true; input.focus(); }
    if (panel.hidden || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    move(event.key === "ArrowDown" ? 1 : -1);
  });
  document.addEventListener("click", (event) => { if (!form.contains(event.target)) panel.hidden = true; });
  list.addEventListener("click", () => { panel.hidden = true; });
  input.addEventListener("click", show);
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); input.focus(); }
  });
})();

(function filter() {
  const form = document.getElementById("filter");
  if (!form) return;
  const names = ["words", "verdict", "series", "paper", "profile"];
  const groups = [...document.querySelectorAll("details.group")];
  const rows = [...document.querySelectorAll("details.group tbody tr")];
  const texts = new Map(rows.map((row) => [
    row, plain(`${row.closest("details").querySelector("h2").textContent} ${row.textContent}`),
  ]));

  // A verdict counts at the chosen profile; without one, at any.
  function fits(row) {
    const value = (name) => form.elements[name].value;
    const outcomes = row.dataset.outcomes.trim().split(" ").map((text) => text.split(":"))
      .filter(([profile]) => !value("profile") || profile === value("profile"));
    return outcomes.some(([, verdict]) => !value("verdict") || verdict === value("verdict")) &&
      (!value("series") || row.dataset.series === value("series")) &&
      (!value("paper") || row.dataset.paper === value("paper")) &&
      wordsOf(value("words")).every((word) => texts.get(row).includes(word));
  }

  function apply() {
    const chosen = names.some((name) => form.elements[name].value.trim());
    for (const row of rows) row.hidden = !fits(row);
    for (const group of groups) {
      group.hidden = !group.querySelector("tbody tr:not([hidden])");
      group.open = chosen && !group.hidden;
    }
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("shown").textContent = `${shown} of ${rows.length} claims`;
  }

  function keep() {
    const state = new URLSearchParams(new FormData(form));
    for (const [name, value] of [...state]) if (!value) state.delete(name);
    try { history.replaceState(null, "", state.size ? `#?${state}` : location.pathname); }
    catch (error) { /* some browsers refuse this for files */ }
  }

  // The address holds a choice (#?verdict=undecided) or names one claim (#11_a.key).
  function restore() {
    if (location.hash && !location.hash.startsWith("#?")) {
      form.reset();
      apply();
      const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!row) return;
      row.closest("details").open = true;
      row.scrollIntoView({ block: "center" });
      return;
    }
    const wanted = new URLSearchParams(location.hash.slice(2));
    for (const name of names) {
      form.elements[name].value = wanted.get(name) || "";
      if (form.elements[name].selectedIndex === -1) form.elements[name].value = "";
    }
    apply();
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const kind of ["input", "change"]) form.addEventListener(kind, () => { apply(); keep(); });
  addEventListener("hashchange", restore);
  restore();
})();
