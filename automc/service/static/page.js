// What every page does: leave the session, and keep the selection in the links between a study's pages.

import { ask, leave, trying } from "./api.js";
import { byId, given } from "./dom.js";
import { carry } from "./selection.js";

const logout = byId("logout");
if (logout) {
  logout.addEventListener("click", () => trying(async () => {
    leave();
    await ask(`${given.root}/logout`, { method: "POST" });
    location.assign(`${given.root}/login`);
  }));
  logout.disabled = false;  // a click before would have been lost
}
carry();
