"use strict";
// The table: sorts, filters, selects, hides columns, and leaves as CSV.
const table = document.getElementById("comparison-table");
const body = table.tBodies[0];
const rows = [...body.rows];
const headings = [...table.tHead.rows[0].cells];
const places = columns.map((_, i) => headings.findIndex((heading) => heading.dataset.column === String(i)));
rows.forEach((row) => { // texts stand in the page once
  const run = Number(row.dataset.run);
  columns.forEach((column, i) => { (column.texts ||= [])[run] = row.cells[places[i]].title || row.cells[places[i]].textContent; });
});
runs.forEach((run, i) => {
  run.words = [run.name, run.status, run.error || "", ...columns.map((column) => column.texts[i])].join("\n").toLowerCase();
});

const valueOf = (heading) => {
  if (heading.dataset.column) return (run) => columns[heading.dataset.column].values[run];
  return heading.dataset.sort === "status" ? (run) => runs[run].status : (run) => runs[run].name;
};
const sortBy = (heading) => {
  const first = heading.dataset.first || "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const way = heading.getAttribute("aria-sort") === first ? other : first;
  headings.forEach((each) => each.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", way);
  const value = valueOf(heading);
  const keyed = rows.map((row) => [value(Number(row.dataset.run)), row]);
  keyed.sort(([a], [b]) => inOrder(a, b, way === "ascending" ? 1 : -1));
  body.append(...keyed.map(([, row]) => row));
};
headings.filter((heading) => heading.dataset.sort).forEach((heading) => {
  heading.addEventListener("click", () => sortBy(heading));
  heading.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(heading); }
  });
});
sortBy(headings[places[0]]); // what they are compared by, the best first

// --- filter
const filter = document.getElementById("filter");
const wrong = document.getElementById("filter-wrong");
const only = document.getElementById("only-selected");
const applyFilter = () => {
  let asked = [];
  wrong.textContent = "";
  try { asked = conditions(filter.value); } catch (error) { wrong.textContent = error.message; }
  state.shown = runs.map((_, run) => asked.every((holds_) => holds_(run)) && (!only.checked || state.selected.has(run)));
  changed();
};
filter.addEventListener("input", applyFilter);
only.addEventListener("change", applyFilter);

// --- selection
let last = null; // the row clicked before, for a range with shift
const visible = () => [...body.rows].filter((row) => !row.hidden);
body.addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (!row || String(getSelection())) return; // who marks text to copy it selects no run
  const run = Number(row.dataset.run);
  const on = !state.selected.has(run);
  const there = visible();
  const [from, to] = [there.indexOf(last), there.indexOf(row)].sort((a, b) => a - b);
  const range = event.shiftKey && from >= 0 ? there.slice(from, to + 1) : [row];
  range.forEach((each) => toggle(Number(each.dataset.run), on));
  last = row;
});
body.addEventListener("keydown", (event) => {
  if (event.key === " " && event.target.matches("input")) { event.preventDefault(); event.target.closest("tr").click(); }
});
body.addEventListener("mousedown", (event) => { if (event.shiftKey) event.preventDefault(); });
body.addEventListener("mouseover", (event) => { const row = event.target.closest("tr"); if (row) lookAt(Number(row.dataset.run)); });
body.addEventListener("mouseleave", () => lookAt(null));
document.getElementById("select-shown").addEventListener("click", () => {
  visible().forEach((row) => state.selected.add(Number(row.dataset.run)));
  changed();
});
document.getElementById("select-none").addEventListener("click", () => { state.selected.clear(); only.checked = false; applyFilter(); });
lookers.push((run) => rows.forEach((row, i) => row.classList.toggle("looked-at", i === run)));

const count = document.getElementById("run-count");
listeners.push(() => {
  rows.forEach((row, run) => {
    row.hidden = !state.shown[run];
    const on = state.selected.has(run);
    if (row.classList.contains("selected") !== on) { row.classList.toggle("selected", on); row.querySelector("input").checked = on; }
  });
  const shown = state.shown.filter(Boolean).length;
  count.textContent = `${shown === runs.length ? runs.length : `${shown} of ${runs.length}`} run${runs.length === 1 ? "" : "s"}`
    + (state.selected.size ? `, ${state.selected.size} selected` : "");
});

// --- columns
const showColumn = (i, on) => {
  columns[i].hidden = !on;
  [headings[places[i]], ...rows.map((row) => row.cells[places[i]])].forEach((cell) => { cell.hidden = !on; });
};
document.querySelectorAll("#columns input").forEach((box) => {
  box.addEventListener("change", () => showColumn(Number(box.value), box.checked));
});

// --- CSV of what is seen, in its order
const quoted = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const csv = () => {
  const seen = columns.map((column, i) => [column, i]).filter(([column]) => !column.hidden);
  const exact = (column, run) => column.values[run] === null ? "" : String(column.values[run]);
  const lines = [["run", "status", ...seen.map(([column]) => column.key)]];
  visible().map((row) => Number(row.dataset.run)).forEach((run) => {
    lines.push([runs[run].name, runs[run].status, ...seen.map(([column]) => exact(column, run))]);
  });
  return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
};
document.getElementById("csv").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "runs.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
