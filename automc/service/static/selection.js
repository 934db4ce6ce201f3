// The whole selection is in the address, so that it can be shared; links to the study's other pages carry it along.

const SHARED = ["x", "y", "colour", "view", "trial", "at", "where", "pin", "order_by"];

export const selected = (name, otherwise = "") => new URLSearchParams(location.search).get(name) ?? otherwise;

export function select(changes) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value === null || value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
  carry();
}

export function carry() {
  const query = new URLSearchParams(location.search);
  const kept = new URLSearchParams(SHARED.filter(name => query.has(name)).map(name => [name, query.get(name)]));
  for (const link of document.querySelectorAll("nav.study a")) {
    link.search = kept.toString();
  }
}

// A form control that is part of the selection: the address decides at first, then the hand.
export function bind(control, name, changed) {
  const found = selected(name, control.value);
  if (control.tagName !== "SELECT" || [...control.options].some(option => option.value === found)) control.value = found;
  control.addEventListener("change", () => {
    select({ [name]: control.value });
    changed();
  });
}
