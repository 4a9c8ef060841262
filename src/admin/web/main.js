// Begins everything, and asks the server again and again how it is.

import { Failure, ask, changeToken, onToken } from "./api.js";
import * as events from "./events.js";
import * as overview from "./overview.js";
import * as sessions from "./sessions.js";
import * as tester from "./tester.js";
import { byId, say } from "./text.js";

/** Milliseconds between two looks. */
const PAUSE = 1000;
const LIMIT = 10_000;

/** Since when the server has not answered. */
let silent = null;
/** It is not asked again before there is a token. */
let locked = false;

function trouble(text) {
  const shown = byId("trouble");
  say(shown, text);
  shown.hidden = text === "";
}

async function look() {
  let pause = PAUSE;
  try {
    const status = await ask("status", { signal: AbortSignal.timeout(LIMIT) });
    silent = null;
    trouble("");
    overview.update(status, Date.now());
    sessions.know(status);
    tester.propose(status);
  } catch (error) {
    overview.interrupt(Date.now());
    if (error instanceof Failure && (error.status === 401 || error.status === 403)) {
      trouble(error.status === 401 ? "This page needs the management token." : `The server refuses: ${error.message}.`);
      byId("token-button").hidden = false;
      locked = true;
      return;
    }
    silent ??= new Date();
    trouble(`The server has not answered since ${silent.toLocaleTimeString("en-GB")}; what is below was so then.`);
    pause *= 2;
  }
  setTimeout(look, pause);
}

byId("token-button").addEventListener("click", changeToken);
onToken((found) => {
  byId("token-button").hidden = found;
  if (found && locked) {
    locked = false;
    look();
  }
});
overview.start();
sessions.start();
events.start();
tester.start();
look();
