"use strict";
// The curves, a line per run. Runs of one colour are one trace with gaps: ten traces draw in the time that 200 don't.
const X = { epoch: "epoch", step: "optimizer step", seconds: "training (s)" };
const along = document.getElementById("curves-x");
const charts = [...document.querySelectorAll("figure.chart[data-curves]")].map((figure) => ({
  plot: figure.querySelector(".plot"), metric: figure.querySelector(".curve-metric"), log: figure.querySelector(".log"),
}));

const linesOf = (metric, x) => { // colour and weight → one trace
  const traces = new Map();
  runs.forEach((_, run) => {
    const values = curves.runs[run][metric];
    if (!state.shown[run] || !values) return;
    const low = faint(run);
    const colour = low ? "var(--grid)" : colours.of(run);
    const key = `${low}${colour}`;
    if (!traces.has(key)) traces.set(key, { colour, low, x: [], y: [], text: [], customdata: [], lone: [] });
    const trace = traces.get(key);
    const words = label(run);
    const there = curves.runs[run][x];
    values.forEach((value, i) => {
      if (value !== null && (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null) trace.lone.push(trace.x.length);
      trace.x.push(there[i]); trace.y.push(value); trace.text.push(words); trace.customdata.push(run);
    });
    trace.x.push(null); trace.y.push(null); trace.text.push(""); trace.customdata.push(run);
  });
  return [...traces.values()].sort((a, b) => b.low - a.low); // what is faint lies below
};
const figureOf = ({ metric, log }) => {
  const x = along.value;
  const hovertemplate = `%{text}<br>${plain(metric.value)} %{y:.5~g}<br>${X[x]} %{x}<extra></extra>`;
  const bold = state.selected.size > 0 && state.selected.size <= 20;
  const traces = linesOf(metric.value, x).flatMap(({ colour, low, lone, ...points }) => {
    const line = { color: colour, width: low ? 1 : bold ? 2.2 : many ? 1 : 1.7 };
    const common = { type: "scatter", hovertemplate, showlegend: false, hoverinfo: low ? "skip" : "all" };
    if (low) delete common.hovertemplate;
    const alone = (list) => lone.map((i) => list[i]);
    const dots = { x: alone(points.x), y: alone(points.y), text: alone(points.text), customdata: alone(points.customdata) };
    const drawn = [{ ...common, ...points, mode: "lines", line, opacity: many && !bold && !low ? 0.75 : 1 }];
    if (lone.length) drawn.push({ ...common, ...dots, mode: "markers", marker: { color: colour, size: 6 } });
    return drawn;
  });
  const y = { title: { text: plain(metric.value) + (log.checked ? ", logarithmic" : "") }, type: log.checked ? "log" : "linear", ...(log.checked ? { tickformat: "~g" } : {}) };
  const few = x === "epoch" && curves.runs.every((run) => (run.epoch.at(-1) ?? 0) <= 10);
  const whole = few ? { dtick: 1, tickformat: "d" } : {}; // there is no epoch 1.5
  return {
    data: traces,
    layout: { ...nothing(traces), hovermode: "closest", hoverdistance: 30, uirevision: `${metric.value} ${x} ${log.checked}`, xaxis: { title: { text: X[x] }, ...whole }, yaxis: y },
  };
};

// The run under the pointer, drawn over the others: without a new plot it is there at once.
const SVG = "http://www.w3.org/2000/svg";
const overlay = (chart, run) => {
  const { plot, metric } = chart;
  plot.querySelector(".over")?.remove();
  const layout = plot._fullLayout;
  if (run === null || !layout?.xaxis?.d2p || !state.shown[run] || !curves.runs[run][metric.value]) return;
  const { xaxis, yaxis } = layout;
  const there = curves.runs[run][along.value];
  let path = "";
  let pen = false;
  curves.runs[run][metric.value].forEach((value, i) => {
    if (value === null || there[i] === null) { pen = false; return; }
    path += `${pen ? "L" : "M"}${xaxis.d2p(there[i]).toFixed(1)} ${yaxis.d2p(value).toFixed(1)}`;
    pen = true;
  });
  if (path.includes("NaN")) return;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "over");
  Object.assign(svg.style, { left: `${xaxis._offset}px`, top: `${yaxis._offset}px`, width: `${xaxis._length}px`, height: `${yaxis._length}px` });
  [["var(--card)", 6], ["var(--ink)", 2.6]].forEach(([stroke, width]) => {
    const line = document.createElementNS(SVG, "path");
    Object.entries({ d: path, fill: "none" }).forEach(([name, value]) => line.setAttribute(name, value));
    Object.assign(line.style, { stroke, strokeWidth: width });
    svg.append(line);
  });
  const above = [...plot.querySelectorAll(".main-svg")].pop(); // what is told of the point
  above.before(svg);
};
lookers.push((run) => charts.forEach((chart) => overlay(chart, run)));

const lively = ({ target: plot }) => { // hovering looks at a run, a click selects it
  const run = (event) => event.points[0]?.customdata;
  plot.on("plotly_hover", (event) => { if (Number.isInteger(run(event))) lookAt(run(event)); });
  plot.on("plotly_unhover", () => lookAt(null));
  plot.on("plotly_relayout", () => lookAt(null));
  plot.on("plotly_click", (event) => { if (Number.isInteger(run(event))) toggle(run(event)); });
};
document.querySelectorAll(".plot").forEach((plot) => plot.addEventListener("drawn", lively, { once: true }));
const redrawCurves = () => charts.forEach((chart) => report.show(chart.plot, () => figureOf(chart)));
charts.forEach((chart, i) => {
  curves.metrics.forEach((name) => chart.metric.append(option(name, name)));
  chart.metric.value = data.curvesOf[i];
  [chart.metric, chart.log].forEach((control) => control.addEventListener("change", redrawCurves));
});
along.addEventListener("change", redrawCurves);
listeners.push(redrawCurves);
