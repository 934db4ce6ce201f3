// One SELECT and its rows; the statement is part of the address, and nothing is run before somebody asks.

import { path, post, trying } from "./api.js";
import { byId, replace, table } from "./dom.js";
import { cell } from "./numbers.js";
import { select, selected } from "./selection.js";

const form = byId("sql"), statement = byId("statement");
statement.value = selected("sql", statement.value);

form.addEventListener("submit", event => {
  event.preventDefault();
  select({ sql: statement.value });
  replace(byId("answer"));
  trying(async () => {
    byId("count").textContent = "Running…";
    const asked = post(path("query"), { sql: statement.value });
    const { columns, rows, more } = await asked.finally(() => { byId("count").textContent = ""; });
    byId("count").textContent = `${rows.length} row${rows.length === 1 ? "" : "s"}${more ? ", and there are more" : ""}`;
    replace(byId("answer"), table(columns.map(name => ({
      name, num: rows.some(row => typeof row[name] === "number"), show: row => cell(name, row[name]) })), rows));
  });
});
statement.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
