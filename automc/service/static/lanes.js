// Who ran what: a lane a worker, a bar an attempt, over the time of the newest trials.

import { el, given, replace, svg, tableView } from "./dom.js";
import { clock } from "./numbers.js";

const WIDTH = 1100, LEFT = 150, ROW = 22, TICKS = 6;

export function lanes(figure, runs) {
  const known = runs.filter(run => run.started);
  if (!known.length) return replace(figure, el("p", { class: "soft" }, "No attempt yet."));
  const end = Math.max(...known.map(run => Date.parse(run.finished ?? run.started)));
  const live = known.some(run => !run.finished);
  const until = live ? Math.max(Date.now(), end) : end, from = Math.min(...known.map(run => Date.parse(run.started)));
  const workers = [...new Set(known.map(worker))].sort();
  const x = time => LEFT + ((time - from) / Math.max(until - from, 1)) * (WIDTH - LEFT - 10);
  const height = workers.length * ROW + 24;
  const bars = known.map(run => {
    const start = x(Date.parse(run.started)), stop = run.finished ? x(Date.parse(run.finished)) : x(until);
    const href = `${given.root}/studies/${encodeURIComponent(given.study)}/trials/${run.number}`;
    return svg("a", { href, tabindex: "-1" },
      svg("rect", { class: `lane ${run.state}`, x: start.toFixed(1), y: workers.indexOf(worker(run)) * ROW + 3,
        width: Math.max(stop - start, 1.5).toFixed(1), height: ROW - 6 },
      svg("title", {}, `trial ${run.number}, attempt ${run.attempt}: ${run.state} ${run.reason}`)));
  });
  const ticks = Array.from({ length: TICKS + 1 }, (_, i) => from + (i * (until - from)) / TICKS);
  const open = figure.querySelector("details")?.open;
  const view = tableView([
    { name: "trial", num: true, show: run => String(run.number) },
    { name: "attempt", num: true, show: run => String(run.attempt) },
    { name: "worker", show: worker }, { name: "state", show: run => run.state }, { name: "reason", show: run => run.reason },
    { name: "started", show: run => run.started ?? "-" }, { name: "finished", show: run => run.finished ?? "-" },
  ], () => [...runs].reverse());
  replace(figure, svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${height}`, role: "group",
    "aria-label": `${workers.length} workers and the attempts of the newest trials` },
    ticks.map(tick => svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height - 20 })),
    workers.map((name, i) => svg("text", { class: "tick", x: LEFT - 8, y: i * ROW + 15, "text-anchor": "end" }, name)), bars,
    ticks.map((tick, i) => svg("text", { class: "tick", x: x(tick), y: height - 6,
      "text-anchor": i === TICKS ? "end" : "middle" }, i ? `+${clock((tick - from) / 1000)}` : moment(from).slice(11)))),
  el("figcaption", {}, `Attempts of the newest trials by worker, from ${moment(from)} UTC; `
    + "filled dark: running; outlined red: failed; grey: stopped early or given up."), view);
  view.open = Boolean(open);
}

const moment = time => new Date(time).toISOString().slice(0, 19).replace("T", " ");

const worker = run => (run.pid === null ? run.host || "not known" : `${run.host.slice(0, 14)}:${run.pid}`);
