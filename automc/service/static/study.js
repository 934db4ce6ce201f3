// A study while it is searched: figures, charts, events as they come, and what can be asked of it.

import { ask, ofStudy, trying } from "./api.js";
import { byId, el, given, replace, table, wide } from "./dom.js";
import { lanes } from "./lanes.js";
import { follow, lines } from "./lines.js";
import { age, brief, cell, clock, many, percent } from "./numbers.js";
import { steering } from "./steer.js";
import { watch } from "./events.js";

const PAUSE = 1500, EVERY = 5000, SHOWN = 18;
const now = { status: given.status, activity: null, growth: [], grown: null, growing: false, due: false, busy: false };

function head() {
  const { status } = now;
  const badge = byId("state");
  badge.className = `badge ${status.state}`;
  badge.textContent = status.state;
  byId("why").textContent = status.said;
  const { counts } = status;
  const cards = [
    [`${many(status.finished)} / ${many(status.budget)}`, "trials finished"], [many(counts.running), "running"],
    [many(counts.waiting), "waiting"], [many(counts.failed), "failed"], [many(counts.stopped), "stopped early"],
    [many(status.front), "on the front"], [percent(status.covered), "of the box covered"],
    ...Object.entries(status.best).map(([name, value]) =>
      [cell(name, value), `best ${name} (original ${cell(name, given.baseline[name])})`])];
  replace(byId("cards"), cards.map(([value, name]) => el("div", { class: "card" }, el("b", {}, value), el("span", {}, name))));
  steering(status);
}

function charts() {
  const { status, activity, growth } = now, at = activity.pace.at.map(Date.parse), began = at[0];
  const minutes = at.map(time => (time - began) / 1000);
  const left = activity.pace.place.map(place => Math.max(status.budget - place, 0));
  lines(byId("burn"), { name: "since the first result", values: minutes, show: clock },
    [{ name: "trials left", values: left, show: value => brief(value) }],
    { said: `Trials left of the budget of ${status.budget}${ending(minutes, left)}`, least: 0 });
  const last = growth.at(-1), steps = last && status.finished > last.done ? [...growth, { ...last, done: status.finished }] : growth;
  lines(byId("growth"), { name: "trials finished", values: steps.map(step => step.done), show: brief },
    [{ name: "covered", values: steps.map(step => step.share), show: value => percent(value), steps: true }],
    { said: "Share of the box below the original model that the front covers (its hypervolume)" });
}

// The curve is read again when the front covers another share; of a very large study that takes a while the first time.
function grow() {
  if (now.grown === now.status.covered || now.growing) return;
  [now.growing, now.grown] = [true, now.status.covered];
  ask(ofStudy("/convergence")).then(({ steps }) => {
    now.growth = steps;
    charts();
  }).catch(() => { now.grown = null; }).finally(() => { now.growing = false; });
}

// When the budget is spent at the pace of the last third.
function ending(seconds, left) {
  const last = left.length - 1, from = Math.floor((2 * last) / 3);
  const pace = (left[from] - left[last]) / (seconds[last] - seconds[from]);
  return now.status.state === "running" && pace > 0 ? `; at the pace of late, spent in ${clock(left[last] / pace)}` : "";
}

function fates() {
  const trials = reason => `${here()}/trials?where=${encodeURIComponent(`reason == ${reason}`)}`;
  replace(byId("reasons"), wide("States and reasons", table([
    { name: "state", show: row => el("span", { class: `badge ${row.state}` }, row.state) },
    { name: "reason", show: row => (row.reason ? el("a", { href: trials(row.reason) }, row.reason) : "") },
    { name: "trials", num: true, show: row => many(row.trials) }, { name: "meaning", show: row => row.meaning },
  ], now.activity.fates)));
}

const here = () => `${given.root}/studies/${encodeURIComponent(given.study)}`;

async function refresh() {
  if (now.busy) {
    now.due = true;
    return;
  }
  now.busy = true;
  try {
    const [status, activity] = await Promise.all([ask(ofStudy("/status")), ask(ofStudy("/activity"))]);
    Object.assign(now, { status, activity });
    grow();
    head();
    charts();
    fates();
    lanes(byId("lanes"), activity.runs);
  } finally {
    now.busy = false;
    if (now.due) {
      now.due = false;
      setTimeout(() => refresh().catch(() => null), PAUSE);
    }
  }
}

const link = number => el("a", { href: `${here()}/trials/${number}` }, String(number));

function happened(event, fresh = true) {
  const rows = byId("events");
  rows.prepend(el("tr", { class: fresh ? "fresh" : null },
    el("td", {}, el("time", { datetime: event.at, title: event.at }, event.at.slice(11, 19))), el("td", {}, event.kind),
    el("td", { class: "num" }, event.number === null ? "" : link(event.number)),
    el("td", { class: "message" }, event.text)));
  while (rows.rows.length > SHOWN) rows.lastChild.remove();
  now.status.last_event_at = event.at;
}

head();
await trying(refresh);
follow([byId("burn"), byId("growth")], charts);
given.events.forEach(event => happened(event, false));
watch({
  from: given.status.last_event, happened, settled: () => refresh().catch(() => null),
  said: text => { byId("link").textContent = text; },
});
setInterval(() => document.hidden || refresh().catch(() => null), EVERY);
setInterval(() => { byId("age").textContent = age(now.status.last_event_at); }, 1000);
byId("age").textContent = age(now.status.last_event_at);
