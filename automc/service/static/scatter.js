// Trials in the plane of two metrics: the front, the rest, the original model, what the constraints forbid.

import { svg } from "./dom.js";
import { brief, cell, label } from "./numbers.js";
import { BOX, frame, scale } from "./plot.js";

const STEPS = 8;
const NEAR = 18;

// Points: {number, x, y, kind: front | other | infeasible, colour: number or null}.
export function scatter({ points, original, x, y, colour, falls, bounds, stairs, onPick }) {
  const spots = original ? [...points, original] : points;
  const limits = name => bounds.filter(bound => bound.metric === name).map(bound => bound.bound);
  const across = scale(x, [...spots.map(p => p.x), ...limits(x)], BOX.left, BOX.width - BOX.right);
  const up = scale(y, [...spots.map(p => p.y), ...limits(y)], BOX.height - BOX.bottom, BOX.top);
  const tint = colour ? tints(points.map(p => p.colour).filter(Number.isFinite)) : null;
  const order = { infeasible: 0, other: 1, front: 2 };
  const drawn = [...points].sort((a, b) => order[a.kind] - order[b.kind]);
  const dots = new Map();
  const marks = drawn.map(point => {
    const dot = svg("circle", { class: kindOf(point, tint), cx: across(point.x).toFixed(1), cy: up(point.y).toFixed(1),
      r: point.kind === "front" ? 5 : 2.8, "data-trial": point.number });
    dots.set(point.number, dot);
    return dot;
  });
  const picture = svg("svg", { class: "plot", viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img",
    "aria-label": `${y} over ${x}: ${points.filter(p => p.kind === "front").length} trials on the front` },
    frame(across, up, label(x), label(y)),
    bounds.map(bound => limit(bound, across, up, x, y)).flat(),
    stairs ? step(points.filter(p => p.kind === "front"), across, up, falls) : null,
    marks, original ? diamond(across(original.x), up(original.y)) : null);
  picture.addEventListener("pointermove", event => nearest(event, picture, drawn, across, up, onPick));
  return { picture, dots, tint };
}

function kindOf(point, tint) {
  const shade = tint && Number.isFinite(point.colour) && point.kind !== "infeasible" ? `tinted c${tint.of(point.colour)}` : "";
  return ["dot", point.kind, shade].filter(Boolean).join(" ");
}

// Eight tints over the range, by order where values are far apart.
export function tints(values) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const log = low > 0 && high / low > 20, of = log ? Math.log : v => v;
  const share = v => (high > low ? (of(v) - of(low)) / (of(high) - of(low)) : 0);
  return { low, high, of: v => Math.min(STEPS - 1, Math.floor(share(v) * STEPS)) };
}

export function legend(metric, { low, high }) {
  const bar = svg("svg", { viewBox: `0 0 ${STEPS * 14} 12`, width: STEPS * 14, height: 12, role: "img", "aria-label":
    `${metric} from ${cell(metric, low)} (dark) to ${cell(metric, high)} (bright)` },
    Array.from({ length: STEPS }, (_, i) => svg("rect", { class: `c${i}`, x: i * 14, y: 0, width: 14, height: 12 })));
  return [`${metric}: ${brief(low)} `, bar, ` ${brief(high)}`];
}

// What a constraint on one of the axes forbids, shaded, with a line where it begins.
function limit({ metric, sign, bound }, across, up, x, y) {
  const axis = metric === x ? across : metric === y ? up : null;
  if (!axis || bound < axis.low || bound > axis.high) return [];
  const at = axis(bound), far = axis(sign === "<=" ? axis.high : axis.low), name = `${metric} ${sign} ${brief(bound)}`;
  const [left, right, top, bottom] = [across.start, across.end, up.end, up.start];
  const [from, to] = [Math.min(at, far), Math.max(at, far)];
  return metric === x
    ? [svg("rect", { class: "forbidden", x: from, y: top, width: to - from, height: bottom - top }),
       svg("line", { class: "bound", x1: at, x2: at, y1: top, y2: bottom }),
       svg("text", { class: "bound-name", x: at + 4, y: top + 12 }, name)]
    : [svg("rect", { class: "forbidden", x: left, y: from, width: right - left, height: to - from }),
       svg("line", { class: "bound", x1: left, x2: right, y1: at, y2: at }),
       svg("text", { class: "bound-name", x: right - 4, y: at - 5, "text-anchor": "end" }, name)];
}

// The edge of what the front dominates; `falls`: less x is better.
function step(front, across, up, falls) {
  const members = [...front].sort((a, b) => a.x - b.x || a.y - b.y);
  const spots = members.flatMap((a, i) => {
    const b = members[i + 1];
    return b ? [[a.x, a.y], falls ? [b.x, a.y] : [a.x, b.y]] : [[a.x, a.y]];
  });
  const d = spots.map(([a, b]) => `${across(a).toFixed(1)} ${up(b).toFixed(1)}`).join("L");
  return d ? svg("path", { class: "stairs", d: `M${d}` }) : null;
}

const diamond = (a, b) => svg("g", {}, svg("polygon", { class: "original", points: [[0, -8], [8, 0], [0, 8], [-8, 0]].map(
  ([i, j]) => `${(a + i).toFixed(1)},${(b + j).toFixed(1)}`).join(" ") }), svg("title", {}, "the original model"));

function nearest(event, picture, points, across, up, onPick) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
  let best = null, distance = NEAR ** 2;
  for (const point of points) {
    const found = (across(point.x) - at.x) ** 2 + (up(point.y) - at.y) ** 2;
    // Members of the front go first where several lie close.
    if (found * (point.kind === "front" ? 0.4 : 1) < distance) [best, distance] = [point, found];
  }
  if (best) onPick(best);
}
