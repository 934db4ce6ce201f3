// The service's own routes. A refusal becomes a Problem that says what the service said.

import { given } from "./dom.js";

export class Problem extends Error {
  constructor(status, said) {
    super([said.detail ?? said.title ?? `The service answered ${status}`, said.hint].filter(Boolean).join("\n"));
    this.status = status;
    this.said = said;
  }
}

export const path = (...parts) => `${given.root}/api/v1/${parts.map(encodeURIComponent).join("/")}`;

// A path below a study; a verb such as ":pause" is part of the last name.
export const ofStudy = (rest = "", query = {}) => {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value != null));
  const text = asked.toString();
  return `${path("studies", given.study)}${rest}${text ? `?${text}` : ""}`;
};

const leaving = new AbortController();

// The page is about to be left: what was read is not waited for, and nothing more is.
export const leave = () => leaving.abort();

export async function ask(url, { method = "GET", body, type = "application/json", headers = {}, signal } = {}) {
  const sent = body === undefined ? undefined : type === "application/json" ? JSON.stringify(body) : body;
  const known = sent === undefined ? headers : { "Content-Type": type, ...headers };
  const ends = [signal, method === "GET" ? leaving.signal : null].filter(Boolean);
  let answer, text;
  try {
    answer = await fetch(url, { method, body: sent, headers: known, signal: AbortSignal.any(ends), credentials: "same-origin" });
    text = await answer.text();
  } catch (error) {
    if (method === "GET" && leaving.signal.aborted) await new Promise(() => {});
    throw error;
  }
  const kind = answer.headers.get("Content-Type") ?? "";
  const data = kind.includes("json") && text ? JSON.parse(text) : text;
  if (!answer.ok) throw new Problem(answer.status, typeof data === "object" ? data : { detail: data });
  return data;
}

export const post = (url, body = {}, headers = {}) => ask(url, { method: "POST", body, headers });

// What is wrong, where people and screen readers find it; null clears it.
export function complain(error) {
  document.getElementById("problem").textContent = error ? error.message : "";
}

// Do something; what goes wrong is said on the page.
export async function trying(work) {
  complain(null);
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
    if (!(error instanceof Problem) && !(error instanceof TypeError) && error.name !== "AbortError") throw error;
    return undefined;
  }
}
