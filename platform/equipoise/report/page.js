// What the report does in a browser: draws its figures, and redraws them as its controls are used.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const { frontier, figures } = page;
  const CONFIG = { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "" };
  // Only the frontier has tools to zoom: each of them is one more stop on a keyboard's way through the page.
  const TOOLS = { ...CONFIG, modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };
  const PLAIN = { ...CONFIG, displayModeBar: false };
  // A4 across, less its margins, at 96 pixels an inch: what is drawn for a screen would be cut on paper.
  const PRINT_WIDTH = 1000;
  const byHash = new Map(frontier.candidates.map((candidate) => [candidate.hash, candidate]));
  const state = { up: frontier.up, across: frontier.across, hidden: new Set(), picked: null };
  const element = (id) => document.getElementById(id);

  const isShown = (candidate) =>
    Object.entries(candidate.facets).every(([facet, value]) => !state.hidden.has(`${facet}=${value}`));

  const errorBars = (values) => ({
    type: "data",
    symmetric: false,
    visible: values.some(([value, low, high]) => high > low),
    array: values.map(([value, low, high]) => Math.max(0, high - value)),
    arrayminus: values.map(([value, low, high]) => Math.max(0, value - low)),
    thickness: 1,
    width: 3,
  });

  const trace = (name, marker, members) => {
    const both = members.filter((member) => member.values[state.up] && member.values[state.across]);
    const across = both.map((member) => member.values[state.across]);
    const up = both.map((member) => member.values[state.up]);
    return {
      type: "scatter",
      mode: "markers",
      name,
      marker,
      x: across.map(([value]) => value),
      y: up.map(([value]) => value),
      error_x: errorBars(across),
      error_y: errorBars(up),
      customdata: both.map((member) => member.hash),
      hovertext: both.map((member) => member.hover),
      hovertemplate: "%{hovertext}<extra></extra>",
    };
  };

  // Within a few decades 1, 2 and 5 are labelled: every digit would not fit.
  const logTicks = (key, shown) => {
    const found = shown.flatMap(({ values }) => values[key] ?? []).filter((value) => value > 0);
    const decades = Math.log10(Math.max(...found) / Math.min(...found));
    return decades > 0.5 && decades < 5 ? { dtick: "D2" } : {};
  };

  const axis = (key, shown) => {
    const { title, log } = frontier.quantities[key];
    return {
      ...page.axis,
      title: { text: title },
      ...(log ? { type: "log", tickformat: "~g", ...logTicks(key, shown) } : { type: "linear" }),
    };
  };

  const drawFrontier = () => {
    const shown = frontier.candidates.filter(isShown);
    const traces = frontier.groups
      .map(({ name, marker }) => trace(name, marker, shown.filter((member) => member.group === name)))
      .filter(({ x }) => x.length)
      // What comes later lies on top: the choice last.
      .reverse();
    const picked = byHash.get(state.picked);
    if (picked && isShown(picked)) {
      const ring = { symbol: "circle-open", size: 26, color: "#1a1a1a", line: { width: 2 } };
      traces.push({ ...trace("picked", ring, [picked]), hoverinfo: "skip", hovertemplate: null });
    }
    const layout = { ...page.frontierLayout, xaxis: axis(state.across, shown), yaxis: axis(state.up, shown) };
    Plotly.react("figure-frontier", traces, layout, TOOLS);
    const missing = shown.length - new Set(traces.flatMap(({ customdata }) => customdata)).size;
    element("shown").textContent =
      `${shown.length} of ${frontier.candidates.length} candidates shown` +
      (missing ? `, ${missing} of them without these figures` : "");
  };

  // Bars whose rows are candidates follow the filters too.
  const drawCosts = () => {
    const { data, layout } = figures.costs;
    const kept = (values, names) => values.filter((_, row) => isShown(byHash.get(names[row])));
    const traces = data.map((bar) => ({
      ...bar,
      x: kept(bar.x, bar.y),
      y: kept(bar.y, bar.y),
      hovertext: kept(bar.hovertext, bar.y),
    }));
    const height = layout.height - page.barHeight * (data[0].y.length - traces[0].y.length);
    const yaxis = {
      ...layout.yaxis,
      tickvals: traces[0].y,
      ticktext: kept(layout.yaxis.ticktext, layout.yaxis.tickvals),
    };
    Plotly.react("figure-costs", traces, { ...layout, height, yaxis }, PLAIN);
  };

  const filterRows = () => {
    for (const row of document.querySelectorAll("#candidates tbody tr")) {
      row.hidden = !isShown(byHash.get(row.dataset.hash));
    }
  };

  const pick = (hash) => {
    state.picked = state.picked === hash ? null : hash;
    const picked = byHash.get(state.picked);
    element("picked").replaceChildren(
      ...(picked ? picked.lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })) : []),
    );
    for (const button of document.querySelectorAll("button.pick")) {
      button.setAttribute("aria-pressed", String(button.dataset.hash === state.picked));
    }
    drawFrontier();
  };

  const redraw = () => {
    state.hidden = new Set(
      [...document.querySelectorAll("#controls input:not(:checked)")].map(({ name, value }) => `${name}=${value}`),
    );
    drawFrontier();
    drawCosts();
    filterRows();
  };

  const sortBy = (button) => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const descending = head.getAttribute("aria-sort") === "ascending";
    const column = Number(button.dataset.column);
    const value = (row) => row.cells[column].dataset.value;
    const compare =
      button.dataset.kind === "text"
        ? (left, right) => value(left).localeCompare(value(right), "en", { numeric: true })
        : (left, right) => Number(value(left)) - Number(value(right));
    const rows = [...body.rows].filter((row) => value(row) !== "").sort(compare);
    const unknown = [...body.rows].filter((row) => value(row) === "");
    body.append(...(descending ? rows.reverse() : rows), ...unknown);
    for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  };

  const drawn = () => document.querySelectorAll(".plot");
  addEventListener("beforeprint", () => drawn().forEach((plot) => Plotly.relayout(plot, { width: PRINT_WIDTH })));
  addEventListener("afterprint", () => drawn().forEach((plot) => Plotly.relayout(plot, { width: null })));

  for (const name of ["up", "across"]) {
    element(`axis-${name}`).addEventListener("change", ({ target }) => {
      state[name] = target.value;
      drawFrontier();
    });
  }
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const box of document.querySelectorAll("#controls input")) box.addEventListener("change", redraw);
  element("show-all").addEventListener("click", () => {
    for (const box of document.querySelectorAll("#controls input")) box.checked = true;
    redraw();
  });
  for (const button of document.querySelectorAll("button.toggle")) {
    button.addEventListener("click", () => {
      const boxes = [...button.closest("fieldset").querySelectorAll("input")];
      const tick = boxes.every((box) => !box.checked);
      for (const box of boxes) box.checked = tick;
      redraw();
    });
  }
  for (const button of document.querySelectorAll("button.pick")) {
    button.addEventListener("click", () => pick(button.dataset.hash));
  }
  for (const button of document.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => sortBy(button));
  }
  // A browser may have kept the inputs of an earlier visit.
  element("controls").reset();
  redraw();
  element("figure-frontier").on("plotly_click", ({ points }) => pick(points[0].customdata));
  for (const [name, { data, layout }] of Object.entries(figures)) {
    if (name !== "costs") Plotly.newPlot(`figure-${name}`, data, layout, PLAIN);
  }
})();
