// What policies ask of each layer, as cells: the darker, the more is taken away; the number is always written as well.

import { el, wide } from "./dom.js";
import { cell } from "./numbers.js";

// How much of a layer is gone by a setting, from 0 (untouched) to 1.
const GONE = {
  dropped: Number,
  prune_ratio: Number,
  sparsity: Number,
  rank_ratio: kept => 1 - kept,
  weight_bits: bits => (bits < 32 ? 1 - Math.min(bits, 8) / 9 : 0),
  activation_bits: bits => (bits < 32 ? 1 - Math.min(bits, 8) / 9 : 0),
};

export const untouched = (setting, value) => value === null || value === undefined || GONE[setting](value) === 0;

export const same = (a, b, setting) => (untouched(setting, a) && untouched(setting, b)) || a === b;

export const shade = (setting, value) =>
  untouched(setting, value) ? 0 : Math.round(10 * Math.min(Math.max(GONE[setting](value), 0), 1));

// As short as it is clear in a narrow cell.
export function brief(setting, value) {
  if (untouched(setting, value)) return "·";
  if (setting === "dropped") return "×";
  if (setting.endsWith("_bits")) return String(value);
  return value.toFixed(2).replace(/^0/, "");
}

export const said = (setting, value) => (untouched(setting, value) ? "untouched" : `${setting} ${cell(setting, value)}`);

// One cell; `other` is what it is compared with, undefined for nothing.
export function heatCell(setting, value, { other, layer, more = {} } = {}) {
  const differs = other !== undefined && !same(value, other, setting);
  const words = [layer, said(setting, value), differs ? `there: ${said(setting, other)}` : null].filter(Boolean).join(", ");
  const kind = [`h${shade(setting, value)}`, untouched(setting, value) ? "none" : "", differs ? "differs" : ""];
  return el("td", { class: kind.filter(Boolean).join(" "), title: words, ...more }, brief(setting, value));
}

// Column heads: the layers' names, turned.
export const layerHeads = layers =>
  layers.map(layer => el("th", { scope: "col", title: layer.name }, el("span", { class: "turned" }, layer.name)));

// A policy as strips, one row a quantity, and what differs from another one marked.
export function strip(layers, quantities, values, others) {
  const rows = quantities.map(({ setting, title }) =>
    el("tr", {}, el("th", { scope: "row", title }, setting),
      layers.map((layer, i) => heatCell(setting, values[setting]?.[i],
        { other: others ? others[setting]?.[i] ?? null : undefined, layer: layer.name }))));
  return wide("the policy by layer",
    el("table", { class: "heat" },
      el("thead", {}, el("tr", {}, el("td", {}), layerHeads(layers))), el("tbody", {}, rows)));
}
