// The buttons: only what is legal now, each after its consequences were read; what cannot be taken back is asked twice.

import { ask, ofStudy, post, Problem, trying } from "./api.js";
import { byId, given } from "./dom.js";

const buttons = [...document.querySelectorAll("#actions button")];
const sure = byId("sure"), dialog = byId("extend"), form = dialog.querySelector("form");

export function steering(status) {
  for (const button of buttons) button.disabled = given.scope === "read" || !status.legal.includes(button.dataset.verb);
}

function asked(verb, name) {
  byId("sure-title").textContent = `${name} ${given.study}?`;
  byId("sure-text").textContent = byId(`says-${verb}`).textContent;
  sure.returnValue = "";
  sure.showModal();
  return new Promise(resolve => sure.addEventListener("close", () => resolve(sure.returnValue === "yes"), { once: true }));
}

for (const button of buttons) {
  button.addEventListener("click", () => trying(async () => {
    const { verb } = button.dataset;
    if (verb === "extend") return dialog.showModal();
    if (verb !== "resume" && verb !== "pause" && !(await asked(verb, button.textContent))) return undefined;
    await post(ofStudy(`:${verb}`));
    steering(await ask(ofStudy("/status")));
    return undefined;
  }));
}

byId("extend-go").addEventListener("click", async event => {
  event.preventDefault();
  const said = new FormData(form), body = {}, wrong = byId("extend-problem");
  for (const name of ["trials", "seconds"]) if (said.get(name)) body[name] = Number(said.get(name));
  if (said.get("proposer")) body.proposer = said.get("proposer");
  const constraints = said.get("constraints").split("\n").map(line => line.trim()).filter(Boolean);
  if (constraints.length) body.constraints = constraints;
  if (said.get("backfill")) body.backfill = true;
  wrong.textContent = "";
  event.target.disabled = true;
  try {
    const done = await post(ofStudy(":extend"), body);
    dialog.close();
    const left = Object.entries(done.earlier?.excluded ?? {}).map(([why, count]) => `${count} left out (${why})`);
    byId("said").textContent = `Revision ${done.revision}: ${(done.changes ?? []).join("; ")}. ${left.join("; ")}`;
    steering(await ask(ofStudy("/status")));
  } catch (error) {
    if (!(error instanceof Problem) && !(error instanceof TypeError)) throw error;
    wrong.textContent = error.message;
  } finally {
    event.target.disabled = false;
  }
});
