// The front: any two metrics, a third as colour, as it was after any number of trials; arrow keys walk along it.

import { ask, ofStudy, trying } from "./api.js";
import { show, trial } from "./chosen.js";
import { byId, el, given, replace, tableView } from "./dom.js";
import { exporting } from "./export.js";
import { cell, many } from "./numbers.js";
import { legend, scatter } from "./scatter.js";
import { bind, select, selected } from "./selection.js";

const form = byId("axes"), plane = byId("plane"), slider = form.elements.at;
const now = { points: [], front: [], dots: new Map(), chosen: null, asking: null, data: null, turn: 0 };

async function load() {
  const { x, y, colour } = Object.fromEntries(new FormData(form)), whole = ask(ofStudy("/scatter", { x, y, colour }));
  now.data = null;
  // The front alone is there at once, also of very many trials; the others follow.
  const early = found => now.data || draw(alone(found.trials, { x, y, colour }));
  if (slider.value === slider.max) ask(ofStudy("/pareto")).then(early).catch(() => null);
  now.data = await whole;
  await draw(now.data);
}

// The front as a part of the scatter.
function alone(trials, axes) {
  const rows = trials.filter(row => Number.isFinite(row[axes.x]) && Number.isFinite(row[axes.y]));
  const column = name => rows.map(row => row[name]);
  return { axes: { ...axes, colour: axes.colour || null }, number: column("number"), rung: column("rung"),
    kind: rows.map(() => "front"), place: rows.map(() => 0), x: column(axes.x), y: column(axes.y), colour: axes.colour ? column(axes.colour) : null,
    baseline: given.baseline, shown: 0, total: 0 };
}

// What was known when so many trials had finished: their points, and the front of then.
async function draw(data) {
  const { x, y, colour } = data.axes, at = Number(slider.value), all = at >= Number(slider.max);
  byId("place").textContent = all ? "all" : String(at);
  const turn = ++now.turn;
  const members = all ? null : new Set((await ask(ofStudy("/pareto", { at }))).trials.map(row => row.number));
  if (turn !== now.turn) return;
  now.points = data.number.map((number, i) => ({ number, x: data.x[i], y: data.y[i], place: data.place[i],
    colour: data.colour?.[i] ?? null, rung: data.rung[i], kind: data.kind[i] })).filter(p => all || p.place <= at);
  if (members) for (const p of now.points) {
    p.kind = members.has(p.number) ? "front" : p.kind === "infeasible" ? "infeasible" : "other";
  }
  now.front = now.points.filter(p => p.kind === "front").sort((a, b) => a.x - b.x || a.y - b.y);
  const base = data.baseline, known = Number.isFinite(base[x]) && Number.isFinite(base[y]);
  const original = known ? { x: base[x], y: base[y] } : null;
  if (!now.points.length && !original) {
    replace(plane, el("p", { class: "soft" }, `No complete trial has both ${x} and ${y} yet.`));
    return;
  }
  const near = form.elements.view.value === "near" && now.front.length;
  const drawable = near ? now.points.filter(p => p.kind !== "infeasible") : now.points;
  const aimed = given.objectives.map(o => o.metric);
  const drawn = scatter({ points: drawable, original, x, y, colour, onPick: point => choose(point.number, false),
    falls: given.objectives.find(o => o.metric === x)?.direction === "minimize", bounds: given.constraints,
    stairs: aimed.length === 2 && aimed.includes(x) && aimed.includes(y) });
  now.dots = drawn.dots;
  replace(plane, drawn.picture);
  replace(byId("key"), drawn.tint && Number.isFinite(drawn.tint.low) ? legend(colour, drawn.tint) : null,
    drawable.length < now.points.length ? el("span", {}, `${now.points.length - drawable.length} trials that break a constraint are `
      + "not drawn (show: all).") : null,
    data.shown < data.total ? el("span", {}, `${many(data.shown)} of ${many(data.total)} trials off the front are drawn: half of them `
      + "the nearest to it, half an even choice of the rest.") : null);
  const columns = [
    { name: "trial", num: true, show: p => el("a", { href: `trials/${p.number}` }, String(p.number)) },
    { name: "rung", num: true, show: p => String(p.rung) }, { name: "kind", show: p => p.kind },
    ...[["x", x], ["y", y], ["colour", colour]].filter(([, name]) => name)
      .map(([key, name]) => ({ name, num: true, show: p => cell(name, p[key]) }))];
  replace(byId("behind"), tableView(columns, () => [...now.front, ...now.points.filter(p => p.kind !== "front")]
    .slice(0, 500), `as a table (the front first, at most 500 of ${now.points.length})`));
  mark();
}

function mark() {
  for (const dot of plane.querySelectorAll(".chosen")) dot.classList.remove("chosen");
  const dot = now.dots.get(now.chosen);
  if (dot) {
    dot.classList.add("chosen");
    dot.parentNode.append(dot);
  }
}

// Show a trial; `keep` writes it into the address.
function choose(number, keep) {
  if (keep) select({ trial: number });
  if (number === now.chosen) return;
  now.chosen = number;
  mark();
  now.asking?.abort();
  now.asking = new AbortController();
  const { signal } = now.asking;
  trying(async () => {
    const pin = Number(selected("pin") || number);
    const [found, other] = await Promise.all([trial(number, signal), trial(pin, signal)]);
    const pinned = pin === number ? undefined : other;
    if (!signal.aborted) show(byId("chosen"), byId("policy"), found, { pinned, buttons: buttons(found) });
  });
}

function buttons(found) {
  const pinned = selected("pin") === String(found.number);
  const again = () => { const number = now.chosen; now.chosen = null; choose(number, true); };
  return [
    el("button", { type: "button", "aria-pressed": String(pinned), click: () => {
      select({ pin: pinned ? "" : found.number });
      again();
    } }, pinned ? "Unpin" : "Pin to compare"),
    given.scope === "read" ? null : el("button", { type: "button", click: () => exporting(found.number) }, "Export…"),
  ];
}

plane.addEventListener("keydown", event => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!now.front.length) return;
  const here = now.front.findIndex(p => p.number === now.chosen), last = now.front.length - 1;
  if (step) choose(now.front[here < 0 ? (step > 0 ? 0 : last) : Math.min(Math.max(here + step, 0), last)].number, true);
  else if (event.key === "Home") choose(now.front[0].number, true);
  else if (event.key === "End") choose(now.front[last].number, true);
  else if (event.key === "Enter" && now.chosen !== null) select({ trial: now.chosen });
  else return;
  event.preventDefault();
});
plane.addEventListener("click", () => now.chosen !== null && select({ trial: now.chosen }));

for (const name of ["x", "y", "colour"]) bind(form.elements[name], name, () => trying(load));
bind(form.elements.view, "view", () => trying(() => draw(now.data)));
slider.value = selected("at", slider.max);
slider.addEventListener("input", () => now.data && trying(() => draw(now.data)));
slider.addEventListener("change", () => select({ at: slider.value === slider.max ? "" : slider.value }));
form.addEventListener("submit", event => event.preventDefault());

await trying(load);
if (selected("trial")) choose(Number(selected("trial")), false);
else if (now.front.length) choose(now.front[Math.floor(now.front.length / 2)].number, false);
