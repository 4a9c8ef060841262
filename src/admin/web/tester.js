// The test of this server from this browser: what works, per transport, in words.

import { Failure, ask } from "./api.js";
import { explain, gather, isLoopback, loop, parse, withHost } from "./ice.js";
import { bits, byId, enumerate, make, say } from "./text.js";

/** How long credentials for the test are good, in seconds. */
const TTL = 600;

let proposed = "";

export function start() {
  byId("test-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  for (const id of ["test-user", "test-password"]) {
    byId(id).addEventListener("input", useOwn);
  }
}

function useOwn() {
  document.querySelector("input[name=credentials][value=own]").checked = true;
}

/** Where the server is reached, unless the operator has written something else. */
export function propose({ uris }) {
  const field = byId("test-uris");
  // Under the name that leads to the page the server is reached as well, if it listens everywhere and this is no tunnel.
  const here = isLoopback(location.hostname) ? null : location.hostname;
  const written = [...new Set(uris.map(({ uri, any_address }) => (any_address && here ? withHost(uri, here) : uri)))];
  const order = ({ is_turn, transport }) => (is_turn ? ["UDP", "TCP", "TLS", "DTLS"].indexOf(transport) : -1);
  const found = written.map(parse).filter(Boolean).sort((one, other) => order(one) - order(other)).map(({ uri }) => uri).join("\n");
  if (found !== proposed && field.value === proposed) {
    proposed = found;
    field.value = found;
    field.rows = Math.min(8, Math.max(2, uris.length));
  }
}

async function credentials() {
  const [user, password] = ["test-user", "test-password"].map(byId);
  if (document.querySelector("input[name=credentials]:checked").value === "made") {
    const { username, password: made } = await ask("v1/credentials", { method: "POST", body: { user: "web-page-test", ttl: TTL } });
    return { username, credential: made };
  }
  if (user.value === "" || password.value === "") {
    (user.value === "" ? user : password).focus();
    throw new Error("Write a user name and a password.");
  }
  return { username: user.value, credential: password.value };
}

async function run() {
  const [button, note, summary, results] = ["test-run", "test-note", "test-summary", "test-results"].map(byId);
  if (button.getAttribute("aria-disabled") === "true") {
    return;
  }
  say(note, "");
  say(summary, "");
  results.replaceChildren();
  const lines = byId("test-uris").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const wrong = lines.find((line) => parse(line) === null);
  if (lines.length === 0 || wrong !== undefined) {
    say(note, wrong === undefined ? "There is no URI to test." : `${wrong} is no URI of a STUN or TURN server.`);
    byId("test-uris").focus();
    return;
  }
  if (!("RTCPeerConnection" in globalThis)) {
    say(note, "This browser has no WebRTC.");
    return;
  }
  button.setAttribute("aria-disabled", "true");
  try {
    const shown = await credentials().catch((error) => {
      throw error instanceof Failure ? new Error(withoutSecret(error)) : error;
    });
    say(summary, "Testing …");
    summary.className = "summary";
    const tests = [...new Set(lines)].map(parse).map((server) => ({ server, card: new Card(server) }));
    results.replaceChildren(...tests.map(({ card }) => card.element));
    const outcomes = await Promise.all(tests.map(async ({ server, card }) => {
      const refused = (error) => ({ verdict: "bad", words: [`The browser refuses: ${error.message}`] });
      const outcome = await test(server, shown, card).catch(refused);
      card.end(outcome);
      return { ...outcome, server };
    }));
    conclude(outcomes, summary);
  } catch (error) {
    say(note, error.message);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** The server makes no credentials: somebody else's have to do. */
function withoutSecret(error) {
  useOwn();
  byId("test-user").focus();
  const known = { 400: "no secret is configured", 403: "no management token is configured" };
  const why = known[error.status] ?? error.message;
  return `The server cannot make credentials here (${why}). Write a user name and a password.`;
}

/** Tests one URI. */
async function test(server, { username, credential }, card) {
  if (server.transport === "DTLS") {
    return { verdict: "none", words: ["Not tested: browsers do not speak TURN over DTLS. coturn's turnutils_uclient -S does."] };
  }
  if (server.scheme.toLowerCase() === "stuns") {
    return { verdict: "none", words: ["Not tested: browsers do not speak STUN over TLS."] };
  }
  const entry = server.is_turn ? { urls: server.uri, username, credential } : { urls: server.uri };
  const found = await gather(entry);
  card.list(found);
  if (!server.is_turn) {
    return stun(found, server);
  }
  const relayed = found.candidates.filter(({ type }) => type === "relay");
  if (relayed.length === 0) {
    return { verdict: "bad", words: failures(found, server) };
  }
  const addresses = [...new Set(relayed.map(({ address, port }) => at(address, port)))];
  const words = [`Relayed at ${enumerate(addresses)} after ${Math.round(relayed[0].milliseconds)} ms.`];
  card.say(`${words[0]} Sending data …`);
  try {
    const { milliseconds, bits: speed } = await loop(entry);
    words.push(`Data pass from one relayed address to another: ${milliseconds.toFixed(1)} ms there and back, ${bits(speed)}.`);
    return { verdict: "good", words };
  } catch (error) {
    const why = error.code ? explain({ code: error.code, text: "" }, server) : `${error.message}.`;
    words.push(`But no data pass between two relayed addresses: ${why} Look at the peer rules ([peers]), at the firewall `
      + "for the relay ports, and whether the server reaches its own external address.");
    return { verdict: "warn", words };
  }
}

/** Some browsers write addresses of IPv6 in brackets. */
const at = (address, port) => (/^[^[].*:/.test(address ?? "") ? `[${address}]:${port}` : `${address ?? "?"}:${port}`);

function stun(found, server) {
  const seen = found.candidates.find(({ type }) => type === "srflx");
  if (seen) {
    return { verdict: "good", words: [`The server sees this browser at ${at(seen.address, seen.port)}.`] };
  }
  if (found.errors.length > 0) {
    return { verdict: "bad", words: failures(found, server) };
  }
  return { verdict: "good", words: ["No error. There is no translation of addresses between this browser and the server."] };
}

function failures({ errors, complete }, server) {
  // What the server has said tells more than that something has not come.
  const worst = [...errors].sort((one, other) => one.code - other.code);
  const told = worst.filter(({ code }) => code < 700);
  const words = [...new Set((told.length > 0 ? told : worst).map((error) => explain(error, server)))];
  if (words.length === 0) {
    const late = "Nothing has come of it in time, and the browser does not say why.";
    words.push(complete ? explain({ code: 701, text: "" }, server) : late);
  }
  return words;
}

function conclude(outcomes, summary) {
  const turn = outcomes.filter(({ server, verdict }) => server.is_turn && verdict !== "none");
  const names = [...new Set(turn.map(({ server }) => server.transport))];
  const has = (name, wanted) => turn.some(({ server, verdict }) => server.transport === name && verdict === wanted);
  const best = (name) => ["good", "warn", "bad"].find((one) => has(name, one));
  const of = (verdict) => names.filter((name) => best(name) === verdict);
  const sentences = [];
  if (of("good").length > 0) {
    sentences.push(`Relaying works over ${enumerate(of("good"))}.`);
  }
  if (of("warn").length > 0) {
    sentences.push(`Over ${enumerate(of("warn"))} addresses are given out, but no data pass.`);
  }
  if (of("bad").length > 0) {
    sentences.push(`It does not work over ${enumerate(of("bad"))}.`);
  }
  const some_fail = turn.some(({ verdict, server }) => verdict === "bad" && best(server.transport) !== "bad");
  if (some_fail) {
    sentences.push("Not every address of it works: see below.");
  }
  const kind = of("good").length === 0 ? "bad" : of("bad").length + of("warn").length > 0 || some_fail ? "warn" : "good";
  summary.className = `summary ${names.length > 0 ? kind : ""}`;
  say(summary, sentences.join(" ") || "Done.");
}

const VERDICTS = { good: "works", warn: "in part", bad: "fails", none: "not tested" };

/** What is shown of one URI. */
class Card {
  constructor(server) {
    this.pill = make("span", { className: "pill" }, "testing");
    this.words = make("p", {}, "Gathering candidates …");
    this.details = make("details", { hidden: true }, make("summary", {}, "Candidates and errors"));
    const name = server.is_turn ? server.transport : "STUN";
    this.element = make("li", { "data-transport": name },
      make("div", { className: "line" }, make("b", {}, name), make("code", {}, server.uri), this.pill), this.words, this.details);
  }

  say(text) {
    say(this.words, text);
  }

  list({ candidates, errors, complete, milliseconds }) {
    const lines = candidates.map((one) => {
      const over = one.relayProtocol ? ` by ${one.relayProtocol.toUpperCase()}` : "";
      return `${one.type} ${at(one.address, one.port)} ${one.protocol ?? ""}${over}, ${Math.round(one.milliseconds)} ms`;
    });
    lines.push(...errors.map(({ code, text, address }) => `error ${code} ${text}${address ? `, from ${address}` : ""}`));
    lines.push(`gathering ${complete ? "complete" : "given up"} after ${Math.round(milliseconds)} ms`);
    this.details.append(make("ul", {}, ...lines.map((line) => make("li", {}, line))));
    this.details.hidden = false;
  }

  end({ verdict, words }) {
    this.element.dataset.verdict = verdict;
    this.pill.className = `pill ${verdict === "none" ? "" : verdict}`;
    say(this.pill, VERDICTS[verdict]);
    this.say(words.join(" "));
  }
}
