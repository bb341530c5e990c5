"use strict";
// Theme, charts that are drawn when they come into view, tables that sort, commands that copy.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;

  // --- theme: the system's, until the button is pressed
  const stored = () => { try { return localStorage.getItem("dlrun-theme"); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem("dlrun-theme", theme); } catch { /* a file may have none */ } };
  const theme = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  if (stored()) root.dataset.theme = stored();
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    store(root.dataset.theme);
    redrawAll();
  });
  dark.addEventListener("change", () => redrawAll());

  // --- charts
  const PAPER = 680; // pixels
  let printing = false;
  const chosen = {}; // group of views → the choice that is shown
  const charts = new Map(); // .plot → what is to be drawn
  document.querySelectorAll('figure.chart > script[type="application/json"]').forEach((script) => {
    charts.set(script.parentElement.querySelector(".plot"), JSON.parse(script.textContent));
  });

  const coloured = (value, colours) => { // a copy in which var(--name) is the colour that the theme has
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? colours.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => coloured(item, colours));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, colours)]));
    }
    return value;
  };
  const merged = (one, other) => { // other wins; lists are replaced
    if (!other || typeof other !== "object" || Array.isArray(other) || !one || typeof one !== "object") return other;
    const both = { ...one };
    for (const [key, value] of Object.entries(other)) both[key] = key in one ? merged(one[key], value) : value;
    return both;
  };
  const viewed = (chart) => {
    let { data, layout } = chart;
    for (const [group, choices] of Object.entries(chart.views || {})) {
      const view = choices[chosen[group]] || Object.values(choices)[0];
      if (view.data) data = data.map((trace, i) => merged(trace, view.data[i] || {}));
      if (view.layout) layout = merged(layout, view.layout);
    }
    return { data, layout };
  };
  const base = () => {
    const axis = {
      gridcolor: "var(--grid)", linecolor: "var(--line)", zerolinecolor: "var(--grid)", automargin: true,
      ticks: "outside", ticklen: 4, tickcolor: "var(--line)", title: { standoff: 8 }, fixedrange: touch, // a finger scrolls
    };
    return {
      axis,
      layout: {
        autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", size: 12, color: "var(--ink)" },
        margin: { l: 8, r: 12, t: 8, b: 8 }, showlegend: undefined,
        dragmode: touch ? false : "zoom",
        modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--soft)", activecolor: "var(--ink)" },
        hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--line)", font: { color: "var(--ink)" }, namelength: 40 },
        legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
      },
    };
  };
  const config = {
    responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover", doubleClick: "reset+autosize",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"], typesetMath: false,
  };
  const LABEL = 14; // pixels that the name of a class takes on its axis
  const thinned = (axis, width) => { // so many names of those it has that none lies on another
    const every = Math.ceil((axis?.ticktext?.length || 0) / Math.max(4, Math.floor((width - 130) / LABEL)));
    const kept = (list) => list.filter((_, i) => i % every === 0);
    return every > 1 ? { ...axis, tickvals: kept(axis.tickvals), ticktext: kept(axis.ticktext) } : axis;
  };
  const draw = (plot) => {
    const chart = charts.get(plot);
    const { data, layout } = viewed(typeof chart === "function" ? chart() : chart);
    const { axis, layout: common } = base();
    const shown = Object.entries(charts.get(plot).views || {}).map(([group, choices]) => chosen[group] || Object.keys(choices)[0]);
    const whole = merged({ ...common, uirevision: shown.join("/") || "always" }, layout); // a zoom outlives the theme
    for (const key of new Set(["xaxis", "yaxis", ...Object.keys(layout)])) {
      if (!/^[xy]axis\d*$/.test(key)) continue;
      const its = plot.classList.contains("square") ? thinned(layout[key], printing ? PAPER : plot.clientWidth) : layout[key];
      whole[key] = merged(axis, its || {});
    }
    if (printing) { // nobody says how wide the paper is: A4 and Letter have this much
      whole.width = plot.closest(".charts") ? PAPER / 2 - 10 : PAPER;
      if (plot.classList.contains("square")) whole.height = PAPER * 0.8;
    }
    const colours = getComputedStyle(root);
    plot.dataset.drawn = "yes";
    return Plotly.react(plot, coloured(data, colours), coloured(whole, colours), config)
      .then(() => plot.dispatchEvent(new Event("drawn")));
  };
  const drawn = () => [...charts.keys()].filter((plot) => plot.dataset.drawn);
  const redrawAll = () => drawn().forEach(draw);
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    seen.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "200px" });
  charts.forEach((_, plot) => seen.observe(plot));
  // For a page's own scripts: {data, layout, views} in a .plot, or a function that makes it, at once if it has been in
  // view, else when it comes. The .plot is told by an event, `drawn`.
  const show = (plot, figure) => {
    charts.set(plot, figure);
    return plot.dataset.drawn ? draw(plot) : seen.observe(plot);
  };
  window.report = { show, draw, charts, theme, coloured: (value) => coloured(value, getComputedStyle(root)) };

  document.querySelectorAll(".switch button").forEach((button) => button.addEventListener("click", () => {
    const { group } = button.parentElement.dataset;
    chosen[group] = button.dataset.choice;
    button.parentElement.querySelectorAll("button").forEach((other) => {
      other.setAttribute("aria-pressed", String(other === button));
    });
    drawn().filter((plot) => group in (charts.get(plot).views || {})).forEach(draw);
  }));

  // --- paper is white, and has all of it
  let before;
  addEventListener("beforeprint", () => {
    printing = true;
    before = root.dataset.theme;
    root.dataset.theme = "light";
    charts.forEach((_, plot) => draw(plot));
    document.querySelectorAll("details").forEach((fold) => { fold.dataset.was = fold.open; fold.open = true; });
  });
  addEventListener("afterprint", () => {
    printing = false;
    if (before) root.dataset.theme = before; else delete root.dataset.theme;
    document.querySelectorAll("details").forEach((fold) => { fold.open = fold.dataset.was === "true"; });
    redrawAll();
  });

  // --- tables: numbers by data-sort or by what they say, the rest as text; what has no value stays below
  const key = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    const said = cell.dataset.sort ?? cell.textContent.trim();
    if (said === "" || said === "–") return null;
    return Number.isNaN(Number(said)) ? said : Number(said);
  };
  const compared = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), undefined, { numeric: true });
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    headings.forEach((heading, column) => {
      heading.tabIndex = 0;
      const sort = () => {
        const first = heading.classList.contains("number") ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const way = heading.getAttribute("aria-sort") === first ? other : first;
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", way);
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null)
          : way === "ascending" ? compared(a, b) : compared(b, a));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      };
      heading.addEventListener("click", sort);
      heading.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
      });
    });
  });

  // --- copying
  document.querySelectorAll("button.copy").forEach((button) => button.addEventListener("click", async () => {
    const source = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch { // no permission: mark it, so that Ctrl-C does it
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }));
})();
