// Lines over a common axis, drawn by uPlot, with a table behind them.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { el, replace, tableView } from "./dom.js";

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const INKS = ["--accent", "--series-2", "--series-3"];

// Draw into a figure. Axis: {name, values, show}; lines: [{name, values, show}], null where there is none.
export function lines(figure, axis, rows, { said, height = 220, least } = {}) {
  figure.chart?.destroy();
  const names = [axis, ...rows];
  const columns = names.map(row => ({ name: row.name, num: true, show: i => row.show(row.values[i]) }));
  const place = el("div", { role: "img", "aria-label": said });
  const open = figure.querySelector("details")?.open;
  const view = tableView(columns, () => axis.values.map((_, i) => i));
  replace(figure, place, el("figcaption", {}, said), view);
  view.open = Boolean(open);
  if (!axis.values.length) return replace(place, el("p", { class: "soft" }, "Nothing yet."));
  const thin = { stroke: colour("--line"), width: 1 }, look = { stroke: colour("--soft"), grid: thin, ticks: thin };
  const y = least === undefined ? {} : { y: { range: (_, low, high) => [least, high * 1.05 || 1] } };
  figure.chart = new uPlot({
    width: figure.clientWidth || 480, height,
    scales: { x: { time: false }, ...y },
    legend: { live: true },
    series: [
      { label: axis.name, value: (_, v) => (v == null ? "-" : axis.show(v)) },
      ...rows.map((row, i) => ({
        label: row.name, stroke: colour(INKS[i]), width: 1.8, spanGaps: true,
        points: { show: axis.values.length < 40 },
        dash: i ? [6, 4] : undefined, paths: row.steps ? uPlot.paths.stepped({ align: 1 }) : undefined,
        value: (_, v) => (v == null ? "-" : row.show(v)),
      })),
    ],
    axes: [
      { ...look, values: (_, ticks) => ticks.map(axis.show) },
      { ...look, size: 64, values: (_, ticks) => ticks.map(rows[0].show) },
    ],
  }, names.map(row => row.values), place);
  return figure.chart;
}

// Charts are as wide as the page, and in its colours, also when these change.
export function follow(figures, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (figures[0].clientWidth === width) return;
    width = figures[0].clientWidth;
    for (const figure of figures) figure.chart?.setSize({ width: figure.clientWidth, height: figure.chart.height });
  }).observe(figures[0]);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}
