// Axes: from values to pixels, linear or logarithmic, with round ticks. The same rules as the report's pictures.

import { given, svg } from "./dom.js";
import { brief } from "./numbers.js";

export const BOX = { width: 760, height: 460, left: 66, right: 18, top: 16, bottom: 48 };

// A scale around finite values with a little air; logarithmic where they are positive and far apart, but for metrics that
// are best when they are 1.
export function scale(metric, values, start, end) {
  const { unit, direction } = given.metrics[metric] ?? {};
  let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const log = low > 0 && high / low > 20 && !(unit === "ratio" && direction === "maximize");
  if (log) [low, high] = [low / 1.15, high * 1.15];
  else {
    const air = (high - low) * 0.04 || Math.abs(low) * 0.1 || 1;
    [low, high] = [low - air, high + air];
  }
  const of = log ? Math.log10 : value => value;
  const at = value => start + ((of(value) - of(low)) / (of(high) - of(low))) * (end - start);
  return Object.assign(at, { low, high, start, end, log, ticks: log ? decades(low, high) : steps(low, high) });
}

function steps(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) found.push(i * step);
  return found;
}

function decades(low, high) {
  const found = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
    for (const m of [1, 2, 5]) if (m * 10 ** p >= low && m * 10 ** p <= high) found.push(m * 10 ** p);
  return found.length <= 8 ? found : found.filter(tick => tick.toExponential()[0] === "1");
}

// Grid, ticks and names of the axes.
export function frame(x, y, xName, yName) {
  const middle = (x.start + x.end) / 2, height = (y.start + y.end) / 2;
  return [
    ...x.ticks.map(tick => [
      svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: y.start, y2: y.end }),
      svg("text", { class: "tick", x: x(tick), y: y.start + 16, "text-anchor": "middle" }, brief(tick)),
    ]),
    ...y.ticks.map(tick => [
      svg("line", { class: "grid", x1: x.start, x2: x.end, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: x.start - 6, y: y(tick) + 4, "text-anchor": "end" }, brief(tick)),
    ]),
    svg("text", { class: "axis", x: middle, y: y.start + 38, "text-anchor": "middle" }, xName),
    svg("text", { class: "axis", x: 14, y: height, "text-anchor": "middle", transform: `rotate(-90 14 ${height})` }, yName),
  ].flat();
}

// A small line without axes: what the values were, from left to right.
export function sparkline(values, said, width = 120, height = 26) {
  const low = Math.min(...values), span = Math.max(...values) - low || 1, step = width / Math.max(values.length - 1, 1);
  const points = values.map((v, i) => `${(i * step).toFixed(1)},${(height - 2 - ((v - low) / span) * (height - 4)).toFixed(1)}`);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": said },
    svg("polyline", { class: "sparkline", points: points.join(" ") }));
}
