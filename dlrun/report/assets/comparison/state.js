"use strict";
// What the parts of the page share: the runs, which of them are shown, selected and looked at, and what gives colour.
const data = JSON.parse(document.getElementById("comparison-data").textContent);
const { runs, columns, curves, tradeoffs } = data;
const byKey = new Map(columns.map((column) => [column.key, column]));
const state = { shown: runs.map(() => true), selected: new Set(), colour: data.colour };
const many = runs.length > 40;

const listeners = [];
let waiting = false;
const changed = () => { // once per frame, however much changes in it
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; listeners.forEach((listener) => listener()); });
};
const toggle = (run, on = !state.selected.has(run)) => {
  if (on) state.selected.add(run); else state.selected.delete(run);
  changed();
};
const lookers = []; // are told the run under the pointer, or null
const lookAt = (run) => lookers.forEach((looker) => looker(run));

const plain = (words) => String(words).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const label = (run) => {
  const words = `${runs[run].name}  ${runs[run].label}`.match(/.{1,60}(\s|$)|.{1,60}/gu) || [];
  return words.slice(0, 4).map(plain).join("<br>") + (runs[run].status === "finished" ? "" : `<br>${plain(runs[run].status)}`);
};
const faint = (run) => state.selected.size > 0 && !state.selected.has(run);

// Numbers, then words, then null, then nothing: whichever way it is sorted, what has no value stays below.
const rank = (value) => value === null ? 3 : value === "null" ? 2 : typeof value === "number" ? 0 : 1;
const ordered = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
  : String(a).localeCompare(String(b), undefined, { numeric: true });
const inOrder = (a, b, way) => rank(a) - rank(b) || way * ordered(a, b);

const nothing = (traces) => traces.some((trace) => trace.y.some((value) => value !== null)) ? {} : { // said, not left empty
  annotations: [{ text: "no finite values", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 14, color: "var(--soft)" } }],
};

const option = (value, words) => {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = words;
  return element;
};
