// Members of the front by layer: one band a quantity, cells that can be walked with the arrow keys and asked "what if".

import { ask, ofStudy, post, Problem, trying } from "./api.js";
import { byId, el, given, replace, svg, table, wide } from "./dom.js";
import { heatCell, layerHeads, said, untouched } from "./heat.js";
import { cell, percent } from "./numbers.js";
import { bind, selected } from "./selection.js";

const form = byId("which"), bands = byId("bands"), dialog = byId("whatif");
let found = null, asked = null;

async function load() {
  const pin = selected("pin");
  found = await ask(ofStudy("/layers", { at: selected("at") }));
  found.pinned = pin ? await ask(ofStudy("/layers", { numbers: pin })) : null;
  const options = [...new Set([...(pin ? [Number(pin)] : []), ...found.trials])];
  form.elements.pin.append(...options.map(number => el("option", { value: number }, `trial ${number}`)));
  form.elements.pin.value = pin;
  draw();
}

// Of more members than are shown an even choice, the ends among them.
function chosen() {
  const most = Number(form.elements.most.value), all = found.trials.map((_, i) => i);
  if (all.length <= most) return all;
  return [...new Set(Array.from({ length: most }, (_, i) => Math.round((i * (all.length - 1)) / (most - 1))))];
}

function draw() {
  const { layers, settings, trials } = found, rows = chosen();
  const touched = setting => settings[setting]?.flat().some(value => !untouched(setting, value));
  const shown = given.quantities.filter(({ setting }) => touched(setting));
  if (!trials.length || !shown.length) {
    replace(bands, el("p", {}, trials.length ? "No member of the front changes a layer." : "There is no front yet."));
    return;
  }
  const hidden = trials.length - rows.length;
  replace(bands, hidden ? el("p", { class: "small soft" }, `${rows.length} of ${trials.length} members are shown.`) : null,
    shown.map(({ setting, title }) => el("section", {}, el("h2", {}, title),
      wide(title,
        el("table", { class: "heat", "data-setting": setting, keydown: walk },
          el("thead", {}, el("tr", {}, el("td", {}), layerHeads(layers)), shares(layers)),
          el("tbody", {}, rows.map((i, row) => member(i, row, setting))))))));
}

// Each column's share of parameters and MACs, as two small bars.
function shares(layers) {
  const high = { params: Math.max(...layers.map(l => l.params)), macs: Math.max(...layers.map(l => l.macs)) };
  const bar = (layer, what, x) => {
    const height = 22 * (layer[what] / (high[what] || 1));
    return svg("rect", { class: `share ${what}`, x, y: 22 - height, width: 9, height });
  };
  return el("tr", {}, el("th", { scope: "row" }, "share"), layers.map(layer => {
    const words = `${percent(layer.params)} of the parameters, ${percent(layer.macs)} of the MACs`;
    const size = { viewBox: "0 0 20 22", width: 20, height: 22, role: "img", "aria-label": words };
    return el("td", { title: words }, svg("svg", size, bar(layer, "params", 0), bar(layer, "macs", 11)));
  }));
}

function member(i, row, setting) {
  const { layers, settings, trials, pinned } = found, number = trials[i];
  const link = el("a", { href: `trials/${number}` }, String(number));
  const cells = settings[setting][i].map((value, column) => heatCell(setting, value, {
    other: pinned ? pinned.settings[setting]?.[0][column] ?? null : undefined,
    layer: layers[column].name,
    more: { tabindex: row === 0 && column === 0 ? "0" : "-1", click: () => ask_if(i, setting, column) },
  }));
  return el("tr", { class: String(number) === selected("pin") ? "chosen" : null }, el("th", { scope: "row" }, link), cells);
}

function walk(event) {
  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const here = event.target.closest("tbody td");
  if (!here) return;
  if (event.key === "Enter" || event.key === " ") here.click();
  else if (step) {
    const body = here.closest("tbody"), row = body.rows[here.parentNode.sectionRowIndex + step[0]];
    const next = row?.cells[here.cellIndex + step[1]];
    if (next?.matches("td")) {
      here.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  } else return;
  event.preventDefault();
}

// What if this cell were another: predicted first, then evaluated as a real trial.
function ask_if(i, setting, column) {
  const layer = found.layers[column], value = found.settings[setting][i][column], number = found.trials[i];
  const site = given.sites.find(one => one.setting === setting && one.layers.includes(layer.name));
  const others = (site?.options ?? []).filter(option => option !== value);
  const along = site?.layers.filter(name => name !== layer.name) ?? [];
  const where = along.length ? `${layer.name} with ${along.join(", ")}` : layer.name;
  byId("whatif-now").textContent = `Trial ${number}, ${where}: ${said(setting, value)}.${site ? "" : " The space holds it fixed."}`;
  const options = others.map(option => el("option", { value: JSON.stringify(option) }, cell(setting, option)));
  replace(dialog.querySelector("select"), options);
  replace(byId("whatif-said"));
  byId("whatif-problem").textContent = "";
  asked = { number, site, setting };
  byId("predict").disabled = !others.length;
  byId("enqueue").disabled = !others.length || given.scope === "read";
  dialog.showModal();
}

const edit = () => `${asked.site.layer}.${asked.setting}=${dialog.querySelector("select").value}`;

async function inDialog(work) {
  byId("whatif-problem").textContent = "";
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Problem) && !(error instanceof TypeError)) throw error;
    byId("whatif-problem").textContent = error.message;
  }
}

byId("predict").addEventListener("click", () => inDialog(async () => {
  const { metrics, note } = await ask(ofStudy("/whatif", { trial: asked.number, edit: edit() }));
  const rows = Object.entries(metrics).filter(([name, row]) => given.aims.includes(name) || row.now !== row.predicted)
    .sort(([a], [b]) => given.aims.includes(b) - given.aims.includes(a));
  replace(byId("whatif-said"), table([
    { name: "metric", show: ([name]) => name },
    { name: `trial ${asked.number}`, num: true, show: ([name, row]) => cell(name, row.now) },
    { name: "predicted", num: true,
      show: ([name, row]) => cell(name, row.predicted) + (row.error ? ` ± ${cell(name, row.error)}` : "") },
    { name: "how", show: ([, row]) => row.how },
  ], rows), el("p", { class: "small soft" }, note));
}));

byId("enqueue").addEventListener("click", () => inDialog(async () => {
  const answer = await post(ofStudy("/trials"), { trial: asked.number, edits: [edit()] });
  replace(byId("whatif-said"), el("p", { class: "ok" }, `It waits as wish ${answer.wish}: whoever searches this study `
    + `evaluates it before the proposer's next policy. The study is ${answer.state}.`));
}));

bind(form.elements.most, "most", draw);
form.elements.pin.addEventListener("change", () => {
  const query = new URLSearchParams(location.search);
  if (form.elements.pin.value) query.set("pin", form.elements.pin.value);
  else query.delete("pin");
  location.search = query;
});
await trying(load);
