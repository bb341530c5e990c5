"use strict";
// Points: the metric against what it cost, with the Pareto front, and any column against any other.
const MARKER = 9;
const groups = (points) => { // {run, x, y, whole, words} by colour, the faint ones first
  const found = new Map();
  points.filter(({ run }) => state.shown[run]).forEach((point) => {
    const low = faint(point.run);
    const key = `${low}${colours.of(point.run)}`;
    if (!found.has(key)) found.set(key, { low, colour: low ? "var(--grey)" : colours.of(point.run), points: [] });
    found.get(key).points.push(point);
  });
  return [...found.values()].sort((a, b) => b.low - a.low).map(({ low, colour, points: its }) => ({
    type: "scatter", mode: "markers", showlegend: false, opacity: low ? 0.25 : 1,
    x: its.map(({ x }) => x), y: its.map(({ y }) => y), customdata: its.map(({ run }) => run), text: its.map(({ words }) => words),
    marker: {
      color: colour, size: many ? MARKER - 2 : MARKER, symbol: its.map(({ whole }) => whole ? "circle" : "circle-open"),
      line: { width: its.map(({ whole }) => whole ? 0.5 : 2), color: its.map(({ whole }) => whole ? "var(--card)" : colour) },
    },
    hovertemplate: "%{text}<extra></extra>",
  }));
};
const short = (value) => typeof value === "number" ? String(Number(value.toPrecision(5))) : plain(value);

const axis = (title, log, values) => { // a decade per tick, or more of them; small numbers as they are typed, not in micro
  const numbers = values.filter((value) => typeof value === "number");
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const decades = log ? Math.log10(high / low) : 0;
  const ticks = decades >= 2 ? { dtick: Math.ceil(decades / 10), ...(decades > 10 ? { exponentformat: "power" } : {}) } : {};
  return { title: { text: plain(title) }, type: log ? "log" : "linear", ...(high < 10 && log ? { tickformat: "~g" } : {}), ...ticks };
};
const tradeoff = (chart) => () => {
  const words = (i) => `${label(chart.runs[i])}${chart.names[i] ? `<br>${plain(chart.names[i])}` : ""}`
    + `<br>${plain(chart.yTitle)} ${short(chart.y[i])}<br>${plain(chart.xTitle)} ${short(chart.x[i])}`;
  const points = chart.runs.map((run, i) => ({ run, x: chart.x[i], y: chart.y[i], whole: chart.whole[i], words: words(i) }));
  const best = chart.front;
  const front = {
    type: "scatter", mode: "lines+markers", name: "Pareto front", showlegend: true, hoverinfo: "skip",
    x: best.map((i) => chart.x[i]), y: best.map((i) => chart.y[i]), line: { color: "var(--ink)", width: 1.2, dash: "dot", shape: "hv" },
    marker: { symbol: "circle-open", size: (many ? MARKER - 2 : MARKER) + 6, color: "var(--ink)", line: { width: 1.6 } },
  };
  return {
    data: [...groups(points), front],
    layout: {
      hovermode: "closest", uirevision: chart.name, showlegend: true,
      xaxis: axis(chart.xTitle, chart.log, chart.x), yaxis: { title: { text: plain(chart.yTitle) } },
    },
  };
};
const redrawTradeoffs = () => tradeoffs.forEach((chart) => {
  report.show(document.querySelector(`#${chart.name} .plot`), tradeoff(chart));
});
listeners.push(redrawTradeoffs);

const against = document.querySelector("#pair .plot");
const [acrossBy, upBy, logAcross] = ["against-x", "against-y", "against-log"].map((id) => document.getElementById(id));
const axisOf = (column, log) => {
  const title = { text: plain(column.title) };
  if (column.kind === "number") return axis(column.title, log, column.values);
  const values = [...new Set(column.values.filter((value) => value !== null))].sort((a, b) => inOrder(a, b, 1));
  const cut = (value) => plain([...String(value)].length > 24 ? `${[...String(value)].slice(0, 23).join("")}…` : value);
  return { title, type: "category", categoryorder: "array", categoryarray: values.map(String), tickvals: values.map(String), ticktext: values.map(cut) };
};
const anyAgainstAny = () => {
  const [x, y] = [byKey.get(acrossBy.value), byKey.get(upBy.value)];
  const told = (column, run) => column.kind === "number" ? (typeof column.values[run] === "number" ? column.values[run] : null)
    : column.values[run] === null ? null : String(column.values[run]);
  const words = (run) => `${label(run)}<br>${plain(y.title)} ${plain(y.texts[run])}<br>${plain(x.title)} ${plain(x.texts[run])}`;
  const points = runs.map((run, i) => ({ run: i, x: told(x, i), y: told(y, i), whole: run.done, words: words(i) }))
    .filter((point) => point.x !== null && point.y !== null);
  const layout = { hovermode: "closest", uirevision: `${x.key} ${y.key} ${logAcross.checked}`, xaxis: axisOf(x, logAcross.checked), yaxis: axisOf(y, false) };
  const traces = groups(points);
  return { data: traces, layout: { ...layout, ...nothing(traces) } };
};
const redrawAgainst = () => report.show(against, anyAgainstAny);
[acrossBy, upBy].forEach((select) => columns.forEach((column) => select.append(option(column.key, column.title))));
acrossBy.value = data.against[0];
upBy.value = data.against[1];
const suggestLog = () => {
  const numbers = byKey.get(acrossBy.value).values.filter((value) => typeof value === "number");
  logAcross.checked = numbers.length > 0 && Math.min(...numbers) > 0 && Math.max(...numbers) >= 20 * Math.min(...numbers);
};
suggestLog();
acrossBy.addEventListener("change", () => { suggestLog(); redrawAgainst(); });
[upBy, logAcross].forEach((control) => control.addEventListener("change", redrawAgainst));
listeners.push(redrawAgainst);
chooseColour(data.colour);
