// What happens, as it happens. The stream is read by fetch, which can show the token; EventSource cannot.

import { Failure, onToken, request } from "./api.js";
import { byId, bytes, clock, count, duration, make, refusal, say } from "./text.js";

/** Events that are kept. */
const KEPT = 300;
/** Milliseconds before a lost stream is asked for again, at first and at most. */
const RETRY = [1000, 30_000];

const ENDS = {
  expired: "not refreshed in time",
  deleted: "ended by the client",
  "credential-expired": "credential over",
  revoked: "revoked by an operator",
  "connection-closed": "connection closed",
  disconnected: "disconnected by an operator",
  stopped: "server stopped",
};

/** Reason phrases of the RFCs: they say no more than the code does in our words. */
const PHRASES = new Set([
  "Try Alternate", "Bad Request", "Unauthenticated", "Forbidden", "Mobility Forbidden", "Unknown Attribute", "Allocation Mismatch",
  "Stale Nonce", "Address Family not Supported", "Wrong Credentials", "Unsupported Transport Protocol",
  "Peer Address Family Mismatch", "Connection Already Exists", "Connection Timeout or Failure", "Allocation Quota Reached",
  "Server Error", "Insufficient Capacity",
]);

/** Milliseconds after which a stream without even a sign of life, of which there is one every 15 s, is given up. */
const SILENCE = 45_000;

/** What waits for the next frame. */
let waiting = [];
let paused = false;
let held = 0;
let current = null;

export function start() {
  byId("events-kind").addEventListener("change", (event) => {
    byId("events-list").dataset.kind = event.target.value;
  });
  byId("events-pause").addEventListener("click", (event) => {
    paused = !paused;
    held = 0;
    event.target.setAttribute("aria-pressed", String(paused));
    say(event.target, paused ? "Go on" : "Pause");
    if (!paused) {
      schedule();
    }
  });
  onToken(listen);
  listen();
}

async function listen() {
  current?.abort();
  const mine = (current = new AbortController());
  const state = byId("events-state");
  let retry = RETRY[0];
  while (!mine.signal.aborted) {
    try {
      const response = await request("v1/events", { signal: mine.signal });
      say(state, "live");
      retry = RETRY[0];
      await read(response.body);
      say(state, "interrupted");
    } catch (error) {
      if (mine.signal.aborted) {
        return;
      }
      if (error instanceof Failure && (error.status === 401 || error.status === 403)) {
        say(state, "needs the token");
        return;
      }
      say(state, error instanceof Failure ? error.message : "interrupted");
    }
    await new Promise((resolve) => setTimeout(resolve, retry));
    retry = Math.min(retry * 2, RETRY[1]);
  }
}

/** Reads server-sent events to the end of the stream (HTML Living Standard §9.2.5). */
async function read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const watch = setTimeout(() => reader.cancel(), SILENCE);
    const { done, value } = await reader.read();
    clearTimeout(watch);
    if (done) {
      return;
    }
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = block.split("\n").map((line) => line.split(/: ?(.*)/s));
      const of = (wanted) => fields.filter(([name]) => name === wanted).map(([, rest]) => rest).join("\n");
      if (of("event") !== "") {
        waiting.push([of("event"), JSON.parse(of("data"))]);
      }
    }
    waiting = waiting.slice(-KEPT);
    schedule();
  }
}

let scheduled = false;

function schedule() {
  if (paused) {
    held = waiting.length;
    say(byId("events-state"), held > 0 ? `paused, ${count(held)} waiting` : "paused");
  } else if (!scheduled) {
    scheduled = true;
    // A hidden page draws no frames, and needs none.
    requestAnimationFrame(() => {
      scheduled = false;
      show(waiting.splice(0));
    });
  }
}

function show(events) {
  const list = byId("events-list");
  if (byId("events-state").textContent.startsWith("paused")) {
    say(byId("events-state"), "live");
  }
  const items = events.map(([name, data]) => item(name, data)).reverse();
  const from_top = list.scrollTop;
  list.prepend(...items);
  if (from_top > 0) {
    // What is being read stays where it is.
    list.scrollTop = from_top + items.reduce((sum, one) => sum + one.offsetHeight, 0);
  }
  while (list.children.length > KEPT) {
    list.lastElementChild.remove();
  }
}

const who = ({ user }) => make("b", {}, user || "anonymous");
const via = ({ client, transport }) => `${client} ${transport.toUpperCase()}`;

function item(name, data) {
  const { kind, sign, parts } = describe(name, data);
  return make("li", { "data-kind": kind },
    make("time", {}, clock(data.at ?? Date.now() / 1000)), make("span", { className: `sign ${sign}`, "aria-hidden": "true" }),
    make("span", {}, ...parts));
}

function describe(name, data) {
  switch (name) {
    case "session-begins":
      return {
        kind: "sessions", sign: "good", parts: [who(data), " begins at ", via(data), ", relayed at ", data.relayed.join(" and ")],
      };
    case "session-ends": {
      const why = ENDS[data.reason] ?? data.reason;
      const sum = `${bytes(data.to_peers.bytes)} to peers, ${bytes(data.to_client.bytes)} to the client`;
      return { kind: "sessions", sign: "idle", parts: [who(data), ` ends after ${duration(data.seconds)}: ${why}; ${sum}`] };
    }
    case "session-moves":
      return { kind: "sessions", sign: "idle", parts: ["A session moves from ", data.from, " to ", via(data)] };
    case "refused": {
      const why = PHRASES.has(data.reason) ? "" : `: ${data.reason}`;
      const more = data.untold > 0 ? ` (and ${count(data.untold)} more before)` : "";
      const what = make("b", {}, refusal(data.code));
      return { kind: "refused", sign: "bad", parts: [what, ` ${data.method} from ${via(data)}${why}${more}`] };
    }
    case "missed":
      return { kind: "other", sign: "warn", parts: [`${count(data.events)} events came faster than this page could take them`] };
    default:
      return { kind: "other", sign: "idle", parts: [`${name} ${JSON.stringify(data)}`] };
  }
}
