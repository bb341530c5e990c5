"use strict";
// The colour of a run: by a column of the table. Few values have Okabe and Ito's colours, numbers a scale.
const COLOURS = ["blue", "orange", "green", "vermillion", "purple", "sky", "yellow"].map((name) => `var(--${name})`);
const STEPS = 10;
const BY_RUN = " run"; // no column is called that

const scale = (values) => { // value → 0 … 1, and whether by its logarithm
  const numbers = values.filter((value) => typeof value === "number");
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const log = low > 0 && high >= 50 * low;
  const place = (value) => log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return { low, high, log, place: (value) => high > low ? place(value) : 0.5 };
};
const step = (place) => `var(--scale-${Math.min(STEPS - 1, Math.floor(place * STEPS))})`;

const colouring = () => { // {of: run → colour, entries: [[words, colour]], bar: {low, high, log} or null}
  let column = byKey.get(state.colour);
  if (state.colour === BY_RUN && runs.length <= COLOURS.length) {
    return { of: (run) => COLOURS[run], entries: runs.map((run, i) => [run.name, COLOURS[i]]), bar: null };
  }
  column = column || byKey.get(data.metric);
  const distinct = [...new Set(column.values.filter((value) => value !== null))].sort((a, b) => inOrder(a, b, 1));
  const numeric = distinct.length > 0 && distinct.every((value) => typeof value === "number");
  const missing = column.values.includes(null) ? [["none", "var(--grey)"]] : [];
  const text = (value) => column.texts[column.values.indexOf(value)];
  if (distinct.length <= COLOURS.length) {
    const even = (i) => step(distinct.length > 1 ? i / (distinct.length - 1) * 0.999 : 0.5);
    const colours = new Map(distinct.map((value, i) => [value, numeric ? even(i) : COLOURS[i]]));
    const entries = distinct.map((value) => [text(value), colours.get(value)]);
    return { of: (run) => colours.get(column.values[run]) || "var(--grey)", entries: [...entries, ...missing], bar: null };
  }
  if (numeric) {
    const bar = { ...scale(column.values), text };
    return { of: (run) => column.values[run] === null ? "var(--grey)" : step(bar.place(column.values[run])), entries: missing, bar };
  }
  const often = new Map();
  column.values.forEach((value) => often.set(value, (often.get(value) || 0) + 1));
  const first = distinct.sort((a, b) => often.get(b) - often.get(a)).slice(0, COLOURS.length - 1);
  const colours = new Map(first.map((value, i) => [value, COLOURS[i]]));
  const entries = first.map((value) => [text(value), colours.get(value)]);
  return { of: (run) => colours.get(column.values[run]) || "var(--grey)", entries: [...entries, ["all others", "var(--grey)"]], bar: null };
};
let colours = colouring();

const swatch = (colour) => {
  const dot = document.createElement("i");
  dot.className = "swatch";
  dot.style.background = colour;
  return dot;
};
const showLegend = (place) => {
  const title = state.colour === BY_RUN ? (runs.length > COLOURS.length ? byKey.get(data.metric).title : "") : byKey.get(state.colour).title;
  place.replaceChildren();
  if (colours.bar) {
    const { low, high, log, text } = colours.bar;
    const bar = document.createElement("span");
    bar.className = "scalebar";
    place.append(text(low), bar, text(high), ` ${title}${log ? ", logarithmic" : ""}`);
  }
  colours.entries.forEach(([words, colour]) => {
    const entry = document.createElement("span");
    entry.className = "entry";
    entry.title = words;
    entry.append(swatch(colour), words);
    place.append(entry);
  });
};
const chooseColour = (key) => {
  state.colour = key;
  colours = colouring();
  document.querySelectorAll(".colour-by").forEach((select) => { select.value = key; });
  document.querySelectorAll(".legend").forEach(showLegend);
  document.querySelectorAll("#comparison-table tbody tr").forEach((row) => {
    row.querySelector(".swatch").style.background = colours.of(Number(row.dataset.run));
  });
  changed();
};
document.querySelectorAll(".colour-by").forEach((select) => {
  select.append(option(BY_RUN, runs.length > COLOURS.length ? "run, by its result" : "run"));
  columns.filter((column) => column.group === "config").forEach((column) => select.append(option(column.key, column.title)));
  columns.filter((column) => column.group !== "config" && column.kind === "number").forEach((column) => select.append(option(column.key, column.title)));
  select.addEventListener("change", () => chooseColour(select.value));
});
