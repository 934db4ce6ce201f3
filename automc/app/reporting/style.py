"""How the page looks and what moves on it: a style sheet for light and dark, and a few lines of JavaScript."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2530; --soft: #5c6773; --line: #d9dee4; --panel: #f5f7f9;
  --accent: #1f5fa8; --accent-ink: #fff; --pick: #c2570a; --other: #97a1ac; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e3e8ee; --soft: #9aa6b2; --line: #333c46;
  --panel: #1c2229; --accent: #6fb1f5; --accent-ink: #10151a; --pick: #f59a4c; --other: #76818d; } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p { max-width: 48rem; } .lead, figcaption, summary { color: var(--soft); }
nav a { margin-right: 1rem; white-space: nowrap; } a { color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { display: inline-block; width: 9rem; text-align: left; background: var(--panel); }
.bar i { display: inline-block; height: .7rem; background: var(--accent); }
pre { background: var(--panel); padding: .7rem .9rem; overflow-x: auto; font-size: .85rem; border-radius: 5px; }
summary { cursor: pointer; } figure { margin: .8rem 0; } svg { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; max-width: 48rem; }
.grid { stroke: var(--line); } .tick { fill: var(--soft); font-size: 11px; }
.axis { fill: var(--ink); font-size: 12px; }
.front { fill: var(--accent); } .other { fill: var(--other); fill-opacity: .55; }
.infeasible { fill: none; stroke: var(--other); stroke-opacity: .7; }
.picked { fill: var(--accent); stroke: var(--pick); stroke-width: 3; } .original { fill: var(--ink); }
.error { stroke: var(--accent); stroke-width: 1.2; } .stairs, .curve { fill: none; stroke: var(--accent); }
.stairs { stroke-opacity: .4; } .curve { stroke-width: 1.8; } .step { fill: var(--accent); }
.cell { fill: var(--accent); stroke: var(--line); } .none { fill: none; stroke: var(--line); stroke-dasharray: 2 2; }
.on-dark { fill: var(--accent-ink); font-size: 9px; pointer-events: none; }
.on-light { fill: var(--ink); font-size: 9px; pointer-events: none; }
.picked-name { fill: var(--pick); font-size: 11px; font-weight: 700; }
circle.marked, .marked rect { stroke: var(--pick); stroke-width: 2; }
#hint { position: fixed; display: none; background: var(--ink); color: var(--paper); padding: .3rem .6rem;
  font-size: .8rem; white-space: pre; border-radius: 4px; pointer-events: none; z-index: 1; }
@media print { body { max-width: none; } #hint { display: none; } }
"""

SCRIPT = """
"use strict";
const box = document.getElementById("hint");
for (const title of document.querySelectorAll("svg title")) {
  title.parentNode.hint = title.textContent;
  title.remove();
}
function trialOf(place) {
  const one = place.closest && place.closest("[data-trial]");
  return one && one.dataset.trial;
}
function mark(trial, on) {
  for (const one of trial ? document.querySelectorAll('[data-trial="' + trial + '"]') : [])
    one.classList.toggle("marked", on);
}
document.addEventListener("pointerover", event => {
  if (!event.target.hint) return;
  box.textContent = event.target.hint;
  box.style.display = "block";
  mark(trialOf(event.target), true);
});
document.addEventListener("pointermove", event => {
  box.style.left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + "px";
  box.style.top = Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8) + "px";
});
document.addEventListener("pointerout", event => {
  box.style.display = "none";
  mark(trialOf(event.target), false);
});
"""
