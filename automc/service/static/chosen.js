// The chosen trial: its metrics beside the original's, its policy as a strip, and what can be done with it.

import { ask, ofStudy } from "./api.js";
import { el, given, replace, table } from "./dom.js";
import { cell, percent } from "./numbers.js";
import { strip } from "./heat.js";

const known = new Map();

// A trial as the service has it; finished ones do not change and are asked for once.
export async function trial(number, signal) {
  if (!known.has(number)) {
    const found = await ask(ofStudy(`/trials/${number}`), { signal });
    if (["waiting", "running"].includes(found.state)) return found;
    known.set(number, found);
  }
  return known.get(number);
}

// Settings by layer, as heat.js draws them.
export function byLayer(rows, quantities) {
  return Object.fromEntries(quantities.map(({ setting }) => [setting, rows.map(row => row[setting] ?? null)]));
}

const BESIDE = 12;

// Metrics in one place; the strip there too, or, of many layers, in the wide place below.
export function show(place, below, found, { pinned, buttons = [] } = {}) {
  const quantities = given.quantities.filter(({ setting }) =>
    [found, pinned].some(one => one?.layers.some(row => row[setting] !== undefined && row[setting] !== null)));
  const names = [...new Set([...given.aims, ...Object.keys(found.metrics)])].filter(name => name in found.metrics);
  const columns = [
    { name: "metric", show: name => name },
    { name: `trial ${found.number}`, num: true, show: name => valued(found, name) },
    { name: "original", num: true, show: name => cell(name, given.baseline[name]) },
    { name: "change", num: true, show: name => change(found.metrics[name], given.baseline[name]) },
    ...(pinned ? [{ name: `trial ${pinned.number}`, num: true, show: name => cell(name, pinned.metrics[name]) }] : []),
  ];
  const rest = names.filter(name => !given.aims.includes(name));
  const policy = quantities.length ? [
    strip(found.layers.map(row => ({ name: row.layer })), quantities, byLayer(found.layers, quantities),
      pinned ? byLayer(pinned.layers, quantities) : undefined),
    el("p", { class: "small soft" }, pinned ? `Framed: differs from trial ${pinned.number}. Dot: as in the original.`
      : "What the policy changes of the original, layer by layer; dot: untouched.")] : [];
  const beside = found.layers.length <= BESIDE;
  replace(place,
    el("h2", {}, el("a", { href: `${given.root}/studies/${encodeURIComponent(given.study)}/trials/${found.number}` },
      `Trial ${found.number}`), ` on rung ${found.rung} `, el("span", { class: `badge ${found.state}` }, found.state)),
    found.reason ? el("p", {}, `${found.reason}: ${found.message ?? ""}`) : null,
    el("div", { class: "row" }, buttons),
    table(columns, names.filter(name => given.aims.includes(name))),
    rest.length ? el("details", {}, el("summary", {}, `${rest.length} more metrics`), table(columns, rest)) : null,
    beside ? policy : null,
    whole(found));
  replace(below, beside ? null : policy);
}

function valued(found, name) {
  const error = found.errors?.[name];
  return cell(name, found.metrics[name]) + (error === undefined || error === null ? "" : ` ± ${cell(name, error)}`);
}

const change = (ours, original) =>
  ours === null || !original ? "-" : `${ours >= original ? "+" : "−"}${percent(Math.abs(ours / original - 1))}`;

function whole(found) {
  const said = Object.entries(found.policy).flatMap(([operator, layers]) =>
    Object.entries(layers["*"] ?? {}).map(([setting, value]) => `${operator} ${setting} ${cell(setting, value)}`));
  return said.length ? el("p", { class: "small" }, `For the whole network: ${said.join(", ")}.`) : null;
}
