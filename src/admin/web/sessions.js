// The table of sessions: search, pages, what one has to do with, and ending it.

import { Failure, ask, onToken, changeToken } from "./api.js";
import { bits, byId, bytes, count, duration, make, say } from "./text.js";

const PAGE = matchMedia("(max-width: 700px)").matches ? 8 : 15;
/** Milliseconds between two looks. */
const PAUSE = 2000;
/** Peers that are named of a session. */
const SOME = 8;

/** Where the pages up to this one begin. */
let cursors = [null];
let next = null;
/** Rows that are shown, by id, with what they showed last. */
const rows = new Map();
let timer = null;
let current = null;
/** Sessions in all, as far as is known. */
let total = 0;

/** Takes in how many sessions there are. */
export function know(status) {
  total = status.allocations.active;
}

export function start() {
  byId("sessions-form").addEventListener("submit", (event) => event.preventDefault());
  let typing = null;
  byId("sessions-search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(restart, 250);
  });
  byId("sessions-transport").addEventListener("change", restart);
  byId("sessions-before").addEventListener("click", () => {
    cursors.pop();
    look();
  });
  byId("sessions-after").addEventListener("click", () => {
    cursors.push(next);
    look();
  });
  onToken(restart);
  document.addEventListener("visibilitychange", () => document.hidden || look());
  look();
}

function restart() {
  cursors = [null];
  look();
}

const search = () => byId("sessions-search").value.trim();
const transport = () => byId("sessions-transport").value;

/** Asks for the page, and again in a while. */
async function look() {
  clearTimeout(timer);
  current?.abort();
  const mine = (current = new AbortController());
  const query = new URLSearchParams({ limit: PAGE });
  for (const [name, value] of [["search", search()], ["transport", transport()], ["cursor", cursors.at(-1)]]) {
    if (value) {
      query.set(name, value);
    }
  }
  let pause = PAUSE;
  try {
    const page = await ask(`v1/sessions?${query}`, { signal: mine.signal });
    if (page.sessions.length === 0 && cursors.length > 1) {
      // Everybody on this page has gone.
      cursors.pop();
      pause = 0;
    }
    note(null);
    show(page);
  } catch (error) {
    if (mine.signal.aborted) {
      return;
    }
    pause = refuse(error);
  }
  if (!document.hidden && pause !== null) {
    timer = setTimeout(look, pause);
  }
}

/** Says why there is nothing; returns when to ask again. */
function refuse(error) {
  if (error instanceof Failure && (error.status === 401 || error.status === 403)) {
    clear();
    if (error.status === 403) {
      note("Sessions, events and credentials need a token, and the configuration has none: set token-file in [management]. "
        + "Over the Unix socket, turnserver ctl sessions shows them.");
    } else {
      const enter = make("button", { type: "button", onclick: changeToken }, "Enter the token");
      note("Sessions are shown to whoever has the management token.", enter);
    }
    return null;
  }
  note(`Not up to date: ${error.message}.`);
  return PAUSE * 2;
}

function note(text, ...more) {
  const shown = byId("sessions-note");
  if (text === null) {
    shown.hidden = true;
  } else if (shown.hidden || !shown.textContent.startsWith(text)) {
    shown.replaceChildren(text, " ", ...more);
    shown.hidden = false;
  }
}

function clear() {
  rows.clear();
  byId("sessions-rows").replaceChildren();
  say(byId("sessions-count"), "");
  say(byId("sessions-page"), "");
  byId("sessions-before").disabled = byId("sessions-after").disabled = true;
}

function show(page) {
  next = page.next;
  const body = byId("sessions-rows");
  const ids = new Set(page.sessions.map(({ id }) => id));
  const focused = body.contains(document.activeElement) ? document.activeElement.closest("tr") : null;
  const at = focused ? [...body.children].indexOf(focused) : -1;
  for (const [id, row] of rows) {
    if (!ids.has(id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  const now = performance.now();
  for (const [place, session] of page.sessions.entries()) {
    let row = rows.get(session.id);
    if (row === undefined) {
      row = new Row(session);
      rows.set(session.id, row);
    }
    row.update(session, now);
    if (body.children[place] !== row.element) {
      body.insertBefore(row.element, body.children[place] ?? null);
    }
  }
  if (focused && !focused.isConnected && !byId("confirm").open) {
    focusNear(at);
  }
  const is_filtered = search() !== "" || transport() !== "";
  const first = (cursors.length - 1) * PAGE;
  const shown = page.sessions.length;
  byId("sessions-table").hidden = shown === 0;
  const more = next !== null;
  const last = first + shown;
  const all = more ? (!is_filtered && total > last ? count(total) : `more than ${count(last)}`) : count(last);
  say(byId("sessions-count"), shown === 0 ? (is_filtered ? "none found" : "none now") : is_filtered ? `${all} found` : all);
  say(byId("sessions-page"), shown === 0 ? "" : `${first + 1} to ${last}`);
  byId("sessions-before").disabled = cursors.length < 2;
  byId("sessions-after").disabled = !more;
  for (const id of ["sessions-before", "sessions-after"]) {
    byId(id).hidden = cursors.length < 2 && !more;
  }
}

/** Puts the focus where the row was that had it. */
function focusNear(at) {
  const left = byId("sessions-rows").children;
  const near = left[Math.min(Math.max(at, 0), left.length - 1)];
  (near?.querySelector("button") ?? byId("sessions-search")).focus();
}

class Row {
  constructor(session) {
    const cell = (name, ...children) => make("td", { role: "cell", className: name }, ...children);
    this.session = session;
    const { user, realm, tenant, client, relayed, id } = session;
    this.client = make("span", { className: "address" }, client);
    this.tag = make("span", { className: "tag" }, session.transport);
    this.age = make("span", {});
    this.up = new Flow();
    this.down = new Flow();
    const lost = "Its transport is gone; it may come back with its mobility ticket";
    this.away = make("span", { className: "tag warn", title: lost }, "away");
    const button = (className, does, ends, child) => {
      const label = `${does} ${user || "an anonymous client"} at ${client}`;
      const made = make("button", { type: "button", className, "aria-label": label }, child);
      made.addEventListener("click", () => open(this.session, made, ends));
      return made;
    };
    const home = [realm, tenant].filter(Boolean).join(" · ");
    this.element = make("tr", { role: "row", "data-id": id },
      cell("user", button("name", "About", false, make("b", {}, user || "anonymous")), make("small", {}, home)),
      cell("client", this.client, " ", this.tag, this.away),
      cell("relayed", ...relayed.map((address) => make("span", { className: "address" }, address))),
      cell("number age", this.age),
      cell("number", this.up.element),
      cell("number", this.down.element),
      cell("action", button("quiet", "Disconnect", true, "Disconnect")));
  }

  update(session, now) {
    this.session = session;
    say(this.client, session.client);
    say(this.tag, session.transport);
    say(this.age, duration(session.age));
    this.away.hidden = !session.away;
    this.up.update(session.to_peers.bytes, now);
    this.down.update(session.to_client.bytes, now);
  }
}

/** Bytes so far, and how fast they become more. */
class Flow {
  constructor() {
    this.total = make("span", {});
    this.speed = make("small", {});
    this.element = make("span", { className: "flow" }, this.total, this.speed);
    this.before = null;
  }

  update(total, now) {
    say(this.total, bytes(total));
    if (this.before && now > this.before.now) {
      const speed = ((total - this.before.total) * 8000) / (now - this.before.now);
      say(this.speed, speed > 0 ? bits(speed) : "idle");
    }
    this.before = { total, now };
  }
}

function facts(...pairs) {
  return make("dl", { className: "facts" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** Tells of a session; ends it if the operator says so, who is asked for that where `ends` is true. */
function open(session, button, ends) {
  const box = byId("confirm");
  const [yes, no, text] = ["confirm-yes", "confirm-no", "confirm-text"].map(byId);
  say(byId("confirm-title"), ends ? "Disconnect?" : "Session");
  say(no, ends ? "Keep it" : "Close");
  text.replaceChildren(
    facts(
      ["User", session.user || "anonymous"],
      ["Realm", [session.realm, session.tenant].filter(Boolean).join(" · ")],
      ["Client", `${session.client} over ${session.transport.toUpperCase()}`],
      ["Relayed", session.relayed.join(", ")],
      ["Session", session.id]),
    make("p", { className: "dim" }, "Disconnected, its allocation ends at once; whoever has valid credentials may come in again."),
  );
  const row = button.closest("tr");
  const at = [...byId("sessions-rows").children].indexOf(row);
  const closed = new AbortController();
  tellMore(session, text, closed.signal);
  box.showModal();
  (ends ? yes : no).focus();
  const close = () => {
    closed.abort();
    yes.onclick = no.onclick = box.oncancel = null;
    box.close();
  };
  no.onclick = () => {
    close();
    if (button.isConnected) {
      button.focus();
    } else {
      focusNear(at);
    }
  };
  box.oncancel = (event) => {
    event.preventDefault();
    no.onclick();
  };
  yes.onclick = async () => {
    close();
    const said = byId("sessions-said");
    try {
      await ask(`v1/sessions/${encodeURIComponent(session.id)}`, { method: "DELETE" });
      say(said, `Session ${session.id} is disconnected.`);
    } catch (error) {
      say(said, error.status === 404 ? `Session ${session.id} had ended already.` : `Not disconnected: ${error.message}.`);
    }
    await look();
    focusNear(at);
  };
}

/** Adds what a list does not say: with whom a session has to do. */
async function tellMore({ id }, text, signal) {
  try {
    const { peers, secret, expires_in } = await ask(`v1/sessions/${encodeURIComponent(id)}`, { signal });
    const some = (names) => {
      const rest = names.length > SOME ? ` and ${names.length - SOME} more` : "";
      return names.length > 0 ? names.slice(0, SOME).join(", ") + rest : "none";
    };
    const more = [
      ["Expires in", `${duration(expires_in)}, unless refreshed`],
      ["Permissions", some(peers.permissions)],
      ["Channels", some(peers.channels.map(({ number, peer }) => `${peer} (${number})`))],
    ];
    if (peers.connections.length > 0) {
      more.push(["Connections", some(peers.connections)]);
    }
    if (secret) {
      more.push(["Secret", secret]);
    }
    text.firstElementChild.append(...facts(...more).children);
  } catch (error) {
    if (!signal.aborted) {
      const why = error.status === 404 ? "It has ended meanwhile." : `${error.message}.`;
      text.lastElementChild.before(make("p", { className: "dim" }, why));
    }
  }
}
