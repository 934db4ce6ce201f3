// Trials as lines over several axes; a range on an axis keeps those that pass through it.

import { ask, ofStudy, trying } from "./api.js";
import { byId, el, given, replace, svg, table, wide } from "./dom.js";
import { brief, cell, label } from "./numbers.js";
import { scale } from "./plot.js";
import { select, selected } from "./selection.js";

const WIDTH = 1100, HEIGHT = 420, TOP = 30, BOTTOM = 24, SIDE = 60;
const figure = byId("lines"), form = byId("axes");
const now = { rows: [], front: new Set(), axes: [], ranges: new Map(), scales: new Map(), lines: new Map() };

async function load() {
  now.axes = [...form.querySelectorAll("input:checked")].map(box => box.value);
  select({ axes: now.axes.join(",") });
  const fields = ["number", "rung", ...now.axes].join(",");
  const [all, members] = await Promise.all([
    ask(ofStudy("/trials", { where: "state == complete", fields, page_size: 5000 })), ask(ofStudy("/pareto"))]);
  now.front = new Set(members.trials.map(row => row.number));
  now.rows = all.trials.filter(row => now.axes.every(name => Number.isFinite(row[name])));
  now.cut = all.next_page_token !== "";
  draw();
}

const across = i => SIDE + (i * (WIDTH - 2 * SIDE)) / Math.max(now.axes.length - 1, 1);

function draw() {
  if (!now.rows.length || now.axes.length < 2) {
    replace(figure, el("p", { class: "soft" }, now.rows.length ? "Choose two axes or more." : "No complete trial has all of these."));
    replace(byId("ranges"));
    return replace(byId("kept"));
  }
  now.scales = new Map(now.axes.map(name => [name, scale(name, now.rows.map(row => row[name]), HEIGHT - BOTTOM, TOP)]));
  now.ranges = new Map([...now.ranges].filter(([name]) => now.axes.includes(name)));
  const order = [...now.rows].sort((a, b) => now.front.has(a.number) - now.front.has(b.number));
  now.lines = new Map(order.map(row => [row.number, svg("polyline", { points: now.axes.map((name, i) =>
    `${across(i).toFixed(1)},${now.scales.get(name)(row[name]).toFixed(1)}`).join(" ") })]));
  const picture = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `${now.rows.length} trials over ${now.axes.join(", ")}` }, [...now.lines.values()],
    now.axes.map((name, i) => spine(name, i)));
  replace(figure, picture);
  replace(byId("ranges"), now.axes.map(ends));
  keep();
}

function spine(name, i) {
  const at = across(i), y = now.scales.get(name);
  const anchor = i === 0 ? "start" : i === now.axes.length - 1 ? "end" : "middle";
  const brush = svg("rect", { class: "brush", "data-axis": name, x: at - 9, width: 18, y: 0, height: 0 });
  const grab = svg("rect", { class: "grab", x: at - 16, width: 32, y: TOP, height: HEIGHT - TOP - BOTTOM,
    pointerdown: event => drag(event, name) });
  return svg("g", {}, svg("line", { class: "spine", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }),
    svg("text", { class: "axis", x: at, y: 14, "text-anchor": anchor }, label(name)),
    y.ticks.map(tick => svg("text", { class: "tick", x: at + 6, y: y(tick) + 4 }, brief(tick))), brush, grab);
}

function drag(event, name) {
  const picture = figure.querySelector("svg"), y = now.scales.get(name);
  const inner = e => {
    const spot = new DOMPoint(e.clientX, e.clientY).matrixTransform(picture.getScreenCTM().inverse());
    return Math.min(Math.max(spot.y, TOP), HEIGHT - BOTTOM);
  };
  const value = at => {
    const share = (at - y.start) / (y.end - y.start);
    return y.log ? y.low * (y.high / y.low) ** share : y.low + share * (y.high - y.low);
  };
  const from = inner(event);
  const move = e => {
    const to = inner(e);
    if (Math.abs(to - from) < 4) now.ranges.delete(name);
    else now.ranges.set(name, [value(Math.max(from, to)), value(Math.min(from, to))]);
    keep();
  };
  event.target.setPointerCapture(event.pointerId);
  event.target.onpointermove = move;
  event.target.onpointerup = e => {
    event.target.onpointermove = null;
    move(e);
    write();
  };
}

// The two ends of a range, for the keyboard.
function ends(name) {
  const [low, high] = now.ranges.get(name) ?? ["", ""];
  const input = (end, value) => el("input", { type: "number", step: "any", "data-axis": name, "data-end": end, size: "8",
    "aria-label": `${name} ${end}`, value: value === "" ? null : Number(value).toPrecision(4), change: typed });
  return el("fieldset", { class: "row" }, el("legend", { class: "small soft" }, name), input("from", low), input("to", high));
}

function typed(event) {
  const name = event.target.dataset.axis, [from, to] = event.target.closest("fieldset").querySelectorAll("input");
  const y = now.scales.get(name);
  if (from.value === "" && to.value === "") now.ranges.delete(name);
  else now.ranges.set(name, [from.value === "" ? y.low : Number(from.value), to.value === "" ? y.high : Number(to.value)]);
  keep();
  write();
}

const inside = row => [...now.ranges].every(([name, [low, high]]) => row[name] >= low && row[name] <= high);

function keep() {
  for (const brush of figure.querySelectorAll(".brush")) {
    const range = now.ranges.get(brush.dataset.axis), y = now.scales.get(brush.dataset.axis);
    const clip = v => Math.min(Math.max(v, TOP), HEIGHT - BOTTOM);
    const [bottom, top] = range ? range.map(v => clip(y(Math.min(Math.max(v, y.low), y.high)))) : [0, 0];
    brush.setAttribute("y", top);
    brush.setAttribute("height", Math.max(bottom - top, 0));
  }
  const kept = now.rows.filter(inside), numbers = new Set(kept.map(row => row.number));
  for (const [number, line] of now.lines) {
    const kind = ["parallel", now.front.has(number) ? "front" : "", numbers.has(number) ? "" : "out"];
    line.setAttribute("class", kind.filter(Boolean).join(" "));
  }
  const first = given.objectives[0], sign = first.direction === "maximize" ? -1 : 1;
  const worth = row => sign * (row[first.metric] ?? 0);
  const shown = kept.sort((a, b) => worth(a) - worth(b) || a.number - b.number).slice(0, 50);
  replace(byId("kept"), el("h2", {}, `${kept.length} of ${now.rows.length} trials${now.cut ? " (the first 5000 are drawn)" : ""}`),
    wide("Trials kept", table([
      { name: "trial", num: true, show: row => el("a", { href: `trials/${row.number}` }, String(row.number)) },
      { name: "front", show: row => (now.front.has(row.number) ? "yes" : "") },
      ...now.axes.map(name => ({ name, num: true, show: row => cell(name, row[name]) }))], shown)));
}

function write() {
  const said = [...now.ranges].map(([name, ends]) => [name, ...ends.map(end => end.toPrecision(6))].join(":"));
  select({ ranges: said.join(",") });
  replace(byId("ranges"), now.axes.map(ends));
}

const axes = selected("axes");
if (axes) for (const box of form.querySelectorAll("input")) box.checked = axes.split(",").includes(box.value);
for (const part of selected("ranges").split(",").filter(Boolean)) {
  const [name, low, high] = part.split(":");
  if (Number.isFinite(Number(low)) && Number.isFinite(Number(high))) now.ranges.set(name, [Number(low), Number(high)]);
}
form.addEventListener("change", () => trying(load));
await trying(load);
