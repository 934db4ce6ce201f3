// The list of studies: what is best, how the front grew, how long ago something happened; kept fresh while it is open.

import { ask, path } from "./api.js";
import { given, replace } from "./dom.js";
import { age, cell, percent } from "./numbers.js";
import { sparkline } from "./plot.js";

const EVERY = 5000;
const rows = new Map([...document.querySelectorAll("tr[data-study]")].map(row => [row.dataset.study, row]));
const drawn = new Map();

function fill(row, study) {
  const part = name => row.querySelector(name), badge = part(".badge"), progress = part("progress");
  badge.className = `badge ${study.state}`;
  badge.textContent = study.state;
  badge.title = study.said;
  progress.max = study.budget || 1;
  progress.value = study.finished;
  progress.nextSibling.textContent = ` ${study.finished} / ${study.budget}`;
  const best = Object.entries(study.best).map(([name, value]) => `${name} ${cell(name, value)}`);
  part(".best").textContent = best.join(", ") || "-";
  part(".failed").textContent = study.counts.failed;
  const time = part("time");
  time.dateTime = study.last_event_at;
  time.title = `${study.last_event_at} UTC`;
}

// A study's line is drawn again when its front covers another share.
async function grow(row, study) {
  if (drawn.get(study.name) === study.covered) return;
  drawn.set(study.name, study.covered);
  const { steps } = await ask(path("studies", study.name, "convergence"));
  const said = `covered ${percent(study.covered)} after ${study.finished} trials`;
  replace(row.querySelector(".growth"), steps.length ? sparkline(steps.map(step => step.share), said) : null,
    ` ${percent(study.covered)}`);
}

function tick() {
  for (const time of document.querySelectorAll(".age time")) time.textContent = age(time.dateTime);
}

async function refresh() {
  if (document.hidden) return;
  const { studies } = await ask(path("studies"));
  if (studies.length !== rows.size || studies.some(study => !rows.has(study.name))) return location.reload();
  for (const study of studies) fill(rows.get(study.name), study);
  tick();
  for (const study of studies) await grow(rows.get(study.name), study).catch(() => null);
}

if (given.root !== undefined && rows.size) {
  await refresh();
  setInterval(() => refresh().catch(() => null), EVERY);
}
