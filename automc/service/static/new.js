// A new study: what is wrong is said while it is typed; a real check evaluates one policy; then it starts.

import { ask, path, post, Problem, trying } from "./api.js";
import { byId, el, given, replace, table, wide } from "./dom.js";
import { cell, clock } from "./numbers.js";

const area = byId("yaml"), verdict = byId("verdict"), start = byId("start"), measure = byId("measure");
const fresh = () => [...crypto.getRandomValues(new Uint32Array(4))].map(word => word.toString(16)).join("-");
const now = { document: null, turn: 0, key: fresh() };

const parse = () => ask(path("studies:parse"), { method: "POST", body: area.value, type: "application/yaml" });

// While somebody types: the text, its keys, names and values; nothing is built.
async function read() {
  const turn = ++now.turn;
  now.document = null;
  start.disabled = true;
  const { document, errors } = await parse();
  if (turn !== now.turn) return;
  if (errors.length) return mistaken(errors);
  now.document = document;
  replace(verdict, "It reads well. A check builds it and evaluates one policy.");
  replace(byId("mistakes"));
  start.disabled = false;
}

// The mistakes that a refusal names, or the refusal itself.
const named = error => error.said.errors ?? [{ pointer: error.said.place ?? "", detail: error.message }];

function mistaken(found) {
  replace(verdict, `${found.length} mistake${found.length === 1 ? "" : "s"}:`);
  replace(byId("checked"));
  replace(byId("mistakes"), el("ul", {}, found.map(one =>
    el("li", {}, one.line ? `line ${one.line}, ` : null, one.pointer ? el("code", {}, one.pointer) : null, ` ${one.detail}`))));
}

function checked(found) {
  const { cost, space, layers, baseline, remarks } = found;
  const more = space.continuous ? `, and ${space.continuous} continuous decisions` : "";
  const size = `${space.decisions} decisions, 10^${space.log10_size.toFixed(1)} policies${more}`;
  const columns = Object.keys(layers[0] ?? {}).map(name => ({ name, show: row => cell(name, [row[name]].flat().join("x")) }));
  replace(byId("checked"),
    el("dl", {}, [["space", size], ["one evaluation", `${cost.seconds_per_evaluation.toFixed(2)} s at the first rung`],
      ["all of it", `${cost.trials} trials on ${cost.workers} worker(s): about ${clock(cost.seconds)}`],
      ...(cost.probes ? [["before", `${cost.probes} probes: about ${clock(cost.probe_seconds)}`]] : []),
      ...Object.entries(baseline).slice(0, 6).map(([name, value]) => [`original ${name}`, cell(name, value)]),
    ].map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    remarks.map(remark => el("p", {}, remark)),
    el("details", {}, el("summary", {}, `${layers.length} layers`), wide("Layers", table(columns, layers))));
}

let timer = 0;
area.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => trying(read), 400);
});

measure.addEventListener("click", () => trying(async () => {
  await read();
  if (!now.document) return;
  replace(verdict, "Building it, and evaluating one policy…");
  measure.disabled = true;
  try {
    checked(await post(path("studies:validate"), now.document));
    replace(verdict, "It can be searched. Nothing was written.");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    mistaken(named(error));
  } finally {
    measure.disabled = false;
  }
}));

byId("new").addEventListener("submit", event => {
  event.preventDefault();
  trying(async () => {
    await read();
    if (!now.document) return;
    replace(verdict, "Building it; the search begins as soon as it is there…");
    start.disabled = true;
    try {
      const made = await post(path("studies"), now.document, { "Idempotency-Key": now.key });
      location.assign(`${given.root}/studies/${encodeURIComponent(made.name)}`);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      now.key = fresh();
      mistaken(named(error));
      start.disabled = false;
    }
  });
});

await trying(read);
