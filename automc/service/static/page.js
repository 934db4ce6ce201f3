// What every page does: leave the session, and keep the selection in the links between a study's pages.

import { ask, leave, trying } from "./api.js";
import { byId, given } from "./dom.js";
import { carry } from "./selection.js";

byId("logout")?.addEventListener("click", () => trying(async () => {
  leave();
  await ask(`${given.root}/logout`, { method: "POST" });
  location.assign(`${given.root}/login`);
}));
carry();
