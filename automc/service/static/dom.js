// Elements made by hand. Text is always text and never markup, whoever wrote it.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter(child => child !== null && child !== undefined));
  return node;
}

// An element; an attribute whose value is a function is a listener of that event.
export const el = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);

export const svg = (name, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);

export const byId = id => document.getElementById(id);

export function replace(node, ...children) {
  node.replaceChildren(...children.flat(2).filter(child => child !== null && child !== undefined));
  return node;
}

// What a page was given by the server: plain data in an element of its own.
export const given = JSON.parse(byId("given").textContent);

// A table of rows. Columns: {name, title, show(row) -> text or node, num}.
export function table(columns, rows, caption) {
  const head = columns.map(c => el("th", { scope: "col", class: c.num ? "num" : null }, c.title ?? c.name));
  const body = rows.map(row =>
    el("tr", { "data-trial": row.number ?? null },
      columns.map(c => el("td", { class: c.num ? "num" : c.class ?? null }, c.show ? c.show(row) : row[c.name] ?? "-"))));
  return el("table", {}, caption ? el("caption", {}, caption) : null,
    el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
}

// A place that scrolls sideways where its content is wider than the page, also by keyboard.
export const wide = (name, ...children) =>
  el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": name }, children);

// The table behind a chart, which is made when somebody opens it.
export function tableView(columns, rows, said = "as a table") {
  const box = wide(said);
  return el("details", { class: "table-view", toggle: event => {
    if (event.target.open && !box.firstChild) box.append(table(columns, rows()));
  } }, el("summary", {}, said), box);
}
