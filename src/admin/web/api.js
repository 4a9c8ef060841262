// Asking the server. The token, where one is wanted, is kept by this tab alone and shown with every request.

import { byId } from "./text.js";

const KEY = "turnserver-token";

/** Why something was not answered as asked. `status` is 0 where nothing came back. */
export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let token = sessionStorage.getItem(KEY);
/** There while the token is being asked for. */
let asking = null;
/** The operator goes on without a token. */
let declined = false;
const listeners = new Set();

/** Calls back whenever another token is in use. */
export const onToken = (listener) => listeners.add(listener);

const headers = (with_token, more) => (with_token ? { Authorization: `Bearer ${with_token}`, ...more } : more);

async function send(path, options, shown) {
  const { method = "GET", body, signal } = options;
  const more = body === undefined ? {} : { "Content-Type": "application/json" };
  try {
    return await fetch(path, {
      method, signal, headers: headers(shown, more), body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "same-origin", referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new Failure(0, "the server does not answer");
  }
}

async function failure(response) {
  const said = await response.json().catch(() => null);
  return new Failure(response.status, typeof said?.error === "string" ? said.error : `HTTP status ${response.status}`);
}

/** The response to a request; asks for the token if one is wanted. */
export async function request(path, options = {}) {
  for (;;) {
    const shown = token;
    const response = await send(path, options, shown);
    if (response.ok) {
      return response;
    }
    if (response.status !== 401 || declined) {
      throw await failure(response);
    }
    // Another request may have got a new one meanwhile.
    if (shown === token && !(await wanted(shown !== null))) {
      throw await failure(response);
    }
  }
}

/** What a request is answered with. */
export const ask = async (path, options) => (await request(path, options)).json();

/** Asks for a token unless that is going on already; whether there is one now. */
function wanted(was_wrong) {
  asking ??= dialog(was_wrong).finally(() => {
    asking = null;
  });
  return asking;
}

/** Asks for the token again, as the operator wishes. */
export function changeToken() {
  declined = false;
  return wanted(false);
}

function dialog(was_wrong) {
  const [box, form, input, wrong, without] =
    ["token", "token-form", "token-input", "token-wrong", "token-no"].map(byId);
  const complain = (text) => {
    wrong.textContent = text;
    wrong.hidden = text === "";
    input.setAttribute("aria-invalid", String(text !== ""));
  };
  complain(was_wrong ? "The server does not take the token that this tab had." : "");
  input.value = "";
  box.showModal();
  return new Promise((resolve) => {
    const end = (found) => {
      form.onsubmit = without.onclick = box.oncancel = null;
      declined = !found;
      box.close();
      resolve(found);
      listeners.forEach((listener) => listener(found));
    };
    without.onclick = () => end(false);
    box.oncancel = () => end(false);
    form.onsubmit = async (event) => {
      event.preventDefault();
      const typed = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(typed)) {
        complain("A token has printable ASCII characters and no spaces.");
        return;
      }
      const response = await send("v1/log-level", {}, typed).catch((error) => error);
      if (response instanceof Response && response.ok) {
        token = typed;
        sessionStorage.setItem(KEY, typed);
        end(true);
      } else {
        complain(response.status === 401 ? "That is not the token." : `It cannot be tried: ${(await failureOf(response)).message}.`);
        input.select();
      }
    };
  });
}

const failureOf = (response) => (response instanceof Response ? failure(response) : response);
