// Export a trial: ask, wait until it is done, and say where the files are.

import { ask, ofStudy, path, post, Problem, trying } from "./api.js";
import { byId, el, given, replace } from "./dom.js";
import { cell } from "./numbers.js";

const dialog = byId("export"), said = byId("said");

export function exporting(number) {
  byId("export-title").textContent = `Export trial ${number}`;
  dialog.onclose = () => {
    if (dialog.returnValue !== "export") return;
    const formats = ["onnx", ...[...dialog.querySelectorAll("input:checked:enabled")].map(box => box.value)];
    trying(async () => {
      const operation = await post(ofStudy("/exports"), { number, formats });
      await follow(operation.id, number);
    });
  };
  dialog.returnValue = "";
  dialog.showModal();
}

async function follow(id, number) {
  for (;;) {
    const found = await ask(path("operations", id));
    replace(said, `Export of trial ${number}: ${found.state}. `);
    const links = (found.result.files ?? []).map(file => [el("a", { href: path("artifacts", file.sha256),
      download: file.file }, `${file.file} (${cell("size_bytes", file.size_bytes)} bytes)`), " "]);
    if (found.state === "failed") {
      replace(said, links.length ? el("span", {}, "Rejected, to be looked at: ", links) : "");
      throw new Problem(0, { detail: `Export of trial ${number}: ${found.said}` });
    }
    if (found.state === "done") {
      replace(said, el("span", { class: "ok" }, `Trial ${number} is exported and proved: `, links));
      return;
    }
    await new Promise(resolve => setTimeout(resolve, 1000));
  }
}
