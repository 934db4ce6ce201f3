// A token becomes a session; then on to the page that was asked for, which is one of this service's.

import { ask, trying } from "./api.js";
import { byId, given } from "./dom.js";

byId("login").addEventListener("submit", event => {
  event.preventDefault();
  trying(async () => {
    await ask(`${given.root}/login`, { method: "POST", body: { token: new FormData(event.target).get("token") } });
    const next = new URL(given.next || `${given.root}/`, location.origin);
    location.assign(next.origin === location.origin ? next.href : `${given.root}/`);
  });
});
byId("login").querySelector("button").disabled = false;  // sent before, the token would stand in the address
