"use strict";
/* Colours, sorting, a filter, and details that open when a name leads into them. */

(function theme() {
  const button = document.querySelector("button.theme");
  const choices = ["auto", "light", "dark"];
  const root = document.documentElement;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = choices[(choices.indexOf(root.dataset.theme) + 1) % choices.length];
    button.querySelector("span").textContent = root.dataset.theme;
  });
})();

(function sorting() {
  const collator = new Intl.Collator("en", { numeric: true });
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = head.classList.contains("left");
        const key = (row) => row.cells[place].dataset.sort;
        const compare = (a, b) => (text ? collator.compare(a, b) : Number(a) - Number(b));
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row, order) => ({ row, order, key: key(row) }));
        rows.sort((a, b) => {
          if ((a.key === "") !== (b.key === "")) return a.key === "" ? 1 : -1;  // missing: last
          return (down ? -1 : 1) * compare(a.key, b.key) || a.order - b.order;
        });
        body.append(...rows.map((item) => item.row));
      });
    });
  }
})();

(function filter() {
  const form = document.querySelector("form.filter");
  const input = form.querySelector("input");
  const status = form.querySelector("[role=status]");
  const rows = [...document.querySelector("#all").tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  function show() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      shown += row.hidden ? 0 : 1;
    }
    status.textContent = `${shown} of ${rows.length} rows`;
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", show);
  show();
})();

(function opening() {
  const blocks = [...document.querySelectorAll("details.block")];
  const button = document.querySelector("button.open");
  button.hidden = blocks.length < 2;
  button.addEventListener("click", () => {
    const open = blocks.some((block) => !block.open);
    blocks.forEach((block) => { block.open = open; });
    button.textContent = open ? "Close all blocks" : "Open all blocks";
  });
  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const block = target && target.closest("details");
    if (block && !block.open) {
      block.open = true;
      target.scrollIntoView();
    }
  }
  window.addEventListener("hashchange", follow);
  follow();
})();
