"use strict";
// Sorts tables, opens columns, copies run ids, switches between plots and shows tooltips. Without scripts the page has the same content.

const words = document.body.dataset;

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  table.querySelectorAll("th[data-column]").forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = words.sort;
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const column = Number(head.dataset.column);
      const next = { none: "descending", descending: "ascending", ascending: "none" }[head.getAttribute("aria-sort") || "none"];
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.sort;
      const compare = (one, other) => {
        const [a, b] = [key(one), key(other)];
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        const numbers = [Number(a), Number(b)];
        return sign * (numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1]);
      };
      body.append(...(next === "none" ? original : [...original].sort(compare)));
    });
  });
}

// Shows and hides groups of columns. The browser remembers the open groups, for all reports from the same place.
// A page in a sandboxed frame has no storage; it starts with all groups closed.
const storageKey = "attention-ladder.columns";
function rememberedGroups() {
  try {
    return new Set(JSON.parse(localStorage.getItem(storageKey)));
  } catch {
    return new Set();
  }
}
for (const toolbar of document.querySelectorAll(".groups")) {
  const buttons = [...toolbar.querySelectorAll("button")];
  const table = document.getElementById(buttons[0].getAttribute("aria-controls"));
  const scroller = table.closest(".scroller");
  const heads = [...table.querySelectorAll("th[data-column]")].sort((a, b) => a.dataset.column - b.dataset.column);
  const spans = [...table.querySelectorAll("th[data-first]")].map((span) => {
    const first = Number(span.dataset.first);
    return [span, heads.slice(first, first + span.colSpan)];
  });
  const layOut = (isOpen) => {
    for (const head of heads) {
      const { column, openedBy } = head.dataset;
      head.hidden = openedBy !== undefined && !isOpen(openedBy);
      for (const row of table.tBodies[0].rows) row.cells[column].hidden = head.hidden;
    }
    for (const [span, below] of spans) {
      const shown = below.filter((head) => !head.hidden).length;
      span.hidden = !shown;
      span.colSpan = shown || 1;
    }
  };
  const fit = () => {
    table.classList.remove("tight");
    table.classList.toggle("tight", scroller.scrollWidth > scroller.clientWidth);
  };
  const open = rememberedGroups();
  const update = () => {
    buttons.forEach((button) => button.setAttribute("aria-expanded", open.has(button.dataset.opens)));
    layOut((group) => open.has(group));
    fit();
  };
  buttons.forEach((button) =>
    button.addEventListener("click", () => {
      const group = button.dataset.opens;
      if (!open.delete(group)) open.add(group);
      try {
        localStorage.setItem(storageKey, JSON.stringify([...open]));
      } catch {} // no storage: the choice is forgotten when the page is closed
      update();
    }),
  );
  addEventListener("beforeprint", () => layOut(() => true));
  addEventListener("afterprint", update);
  addEventListener("resize", fit);
  toolbar.hidden = false;
  update();
}

// A page in a sandboxed frame may not use the clipboard. Then the full id is shown and selected.
for (const run of document.querySelectorAll(".run")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = words.copy;
  button.setAttribute("aria-label", `${words.copyRun} ${run.dataset.run}`);
  run.append(button);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(run.dataset.run);
      button.textContent = words.copied;
    } catch {
      const id = run.querySelector(".id");
      id.textContent = run.dataset.run;
      id.classList.add("whole");
      getSelection().selectAllChildren(id);
      button.textContent = document.execCommand("copy") ? words.copied : words.selected;
    }
    setTimeout(() => (button.textContent = words.copy), 2000);
  });
}

for (const figure of document.querySelectorAll("figure.choice")) {
  const panels = [...figure.querySelectorAll("[data-tab]")];
  const tabs = document.createElement("fieldset");
  tabs.className = "tabs";
  tabs.append(Object.assign(document.createElement("legend"), { textContent: figure.dataset.choice }));
  panels.forEach((panel, number) => {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: figure.id, checked: number === 0 });
    radio.addEventListener("change", () => panels.forEach((other) => (other.hidden = other !== panel)));
    label.append(radio, ` ${panel.dataset.tab}`);
    tabs.append(label);
    panel.hidden = number > 0;
  });
  figure.prepend(tabs);
}
// On paper nobody can switch: print all plots with their names, and restore the state of the screen afterwards.
const opened = new Map();
addEventListener("beforeprint", () => {
  document.querySelectorAll("[data-tab][hidden]").forEach((panel) => {
    opened.set(panel, () => (panel.hidden = true));
    panel.hidden = false;
  });
  document.querySelectorAll("section > details:not([open])").forEach((part) => {
    opened.set(part, () => (part.open = false));
    part.open = true;
  });
});
addEventListener("afterprint", () => {
  opened.forEach((close) => close());
  opened.clear();
});

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
function show(point) {
  tip.textContent = point.getAttribute("aria-label");
  tip.hidden = false;
  const box = point.getBoundingClientRect();
  const left = Math.min(box.left + box.width / 2 + 10, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, left) + scrollX}px`;
  tip.style.top = `${(above < 0 ? box.bottom + 8 : above) + scrollY}px`;
}
for (const point of document.querySelectorAll('svg [aria-roledescription="point"]')) {
  const target = point.closest("a") || point;
  target.addEventListener("pointerenter", () => show(point));
  target.addEventListener("pointerleave", () => (tip.hidden = true));
  target.addEventListener("focus", () => show(point));
  target.addEventListener("blur", () => (tip.hidden = true));
}

// Pointing at a learning curve or at its name dims all other curves.
for (const svg of document.querySelectorAll("figure svg")) {
  const marks = [...svg.querySelectorAll("[data-row]")];
  const rows = new Set(marks.filter((mark) => mark.tagName === "path").map((mark) => mark.dataset.row));
  if (rows.size < 2) continue;
  for (const mark of marks) {
    const { row } = mark.dataset;
    mark.addEventListener("pointerenter", () => {
      for (const other of marks) other.style.opacity = other.dataset.row === row ? "" : "0.15";
    });
    mark.addEventListener("pointerleave", () => marks.forEach((other) => (other.style.opacity = "")));
  }
}
