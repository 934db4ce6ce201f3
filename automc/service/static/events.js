// A study's events as they come. The browser takes the stream up again by itself; what is going on with it is said.

import { ask, ofStudy } from "./api.js";

const QUIET = 400, AGAIN = 3000;

// Every kind of line that a study's log may have.
const KINDS = ["add", "backfill", "create", "delete", "export", "front", "import", "late", "move", "note", "release", "revise",
  "take", "undelete", "wish"];

// `from`: the newest event that is known. `happened` hears each event, `settled` is called when it is quiet for a moment, and
// when the stream was taken up anew.
export function watch({ from, happened, settled, said }) {
  let last = from, timer = 0;

  function begin() {
    const stream = new EventSource(ofStudy("/events", { after: last }));
    stream.onopen = () => said("live");
    stream.onerror = () => {
      if (stream.readyState !== EventSource.CLOSED) said("the service does not answer; trying again");
      else again();
    };
    const hear = message => {
      const event = JSON.parse(message.data);
      last = event.id;
      happened(event);
      clearTimeout(timer);
      timer = setTimeout(settled, QUIET);
    };
    for (const kind of KINDS) stream.addEventListener(kind, hear);
    stream.addEventListener("gone", () => {
      stream.close();
      said("this study was deleted");
    });
  }

  // The service refused the stream: the log was cut, too many listen, or the session ended. What is known is read anew.
  async function again() {
    said("not connected; trying again");
    await new Promise(resolve => setTimeout(resolve, AGAIN));
    try {
      last = (await ask(ofStudy("/status"))).last_event;
      settled();
      begin();
    } catch (error) {
      if (error.status === 401) said("the session has ended; log in again");
      else again();
    }
  }

  begin();
}
