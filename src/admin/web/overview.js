// What goes on: the state of the server, and plots of what it does.

import { Plot } from "./plot.js";
import { bits, byId, count, date, duration, make, rate, refusal, say } from "./text.js";

const DROPS = {
  "not-served": "not served",
  "no-allocation": "no allocation",
  "client-away": "client away",
  "no-channel": "no channel",
  "no-permission": "no permission",
  "peer-refused": "peer refused",
  "bad-indication": "bad indication",
  "rate-limited": "rate limited",
  "too-long": "too long",
  "send-failed": "not sent",
  "queue-full": "slow client",
  "too-many-connections": "too many connections",
  "worker-busy": "worker busy",
  kernel: "by the kernel",
};

const plots = {
  sessions: new Plot({
    id: "plot-sessions",
    title: "Sessions",
    series: [{ key: "udp", label: "UDP" }, { key: "tcp", label: "TCP" }, { key: "tls", label: "TLS" }, { key: "dtls", label: "DTLS" }],
    format: count,
    headline: (_, sum) => count(sum),
    least: 4,
  }),
  traffic: new Plot({
    id: "plot-traffic",
    title: "Throughput",
    series: [{ key: "up", label: "to peers" }, { key: "down", label: "to clients" }],
    facing: true,
    format: bits,
    headline: (values) => bits(values.up + values.down),
    least: 1000,
  }),
  refusals: new Plot({
    id: "plot-refusals",
    title: "Refusals",
    grows: refusal,
    format: rate,
    headline: (_, sum) => rate(sum),
    least: 2,
  }),
  drops: new Plot({
    id: "plot-drops",
    title: "Drops",
    grows: (key) => DROPS[key] ?? key,
    format: rate,
    headline: (_, sum) => rate(sum),
    least: 2,
  }),
};

let before = null;

export function start() {
  byId("plots").append(...Object.values(plots).map((plot) => plot.element));
}

/** Takes in how the server is; `now` is in milliseconds. */
export function update(status, now) {
  showState(status);
  showServer(status);
  const sessions = { udp: 0, tcp: 0, tls: 0, dtls: 0 };
  for (const { transport, active } of status.allocations.by) {
    sessions[transport] = (sessions[transport] ?? 0) + active;
  }
  plots.sessions.add(now, sessions);
  const kernel = status.kernel_drops.reduce((sum, { datagrams }) => sum + datagrams, 0);
  const counts = { drops: { ...status.drops, kernel }, refusals: status.refusals, traffic: status.traffic };
  // A server that was started anew counts from the beginning.
  if (before !== null && before.started === status.started && now > before.now) {
    const seconds = (now - before.now) / 1000;
    const grown = (now_counts, before_counts) => Object.fromEntries(
      Object.entries(now_counts).map(([key, value]) => [key, Math.max(0, value - (before_counts[key] ?? 0)) / seconds]),
    );
    const flow = (direction) => (Math.max(0, counts.traffic[direction].bytes - before.counts.traffic[direction].bytes) * 8) / seconds;
    plots.traffic.add(now, { up: flow("to_peers"), down: flow("to_clients") });
    plots.refusals.add(now, grown(counts.refusals, before.counts.refusals), seconds);
    plots.drops.add(now, grown(counts.drops, before.counts.drops), seconds);
  }
  before = { now, started: status.started, counts };
}

/** The server has not answered. */
export function interrupt(now) {
  Object.values(plots).forEach((plot) => plot.interrupt(now));
  before = null;
  const state = byId("state");
  say(state, "no answer");
  state.className = "pill bad";
  say(byId("about"), "");
}

function showState(status) {
  const state = byId("state");
  const [text, kind] = {
    serving: status.ready ? ["ready", "good"] : ["not ready", "bad"],
    draining: ["draining", "warn"],
    stopping: ["stopping", "bad"],
  }[status.state] ?? [status.state, "warn"];
  say(state, text);
  state.className = `pill ${kind}`;
  say(byId("version"), status.version);
  const reasons = status.obstacles.filter((reason) => reason !== status.state);
  const left = (seconds) => (seconds === null ? "until the last session ends" : `${duration(seconds)} left`);
  const drain = status.drain ? [left(status.drain.left)] : [];
  const about = [...drain, ...reasons, ...(status.answering ? [] : ["a worker does not answer"])];
  say(byId("about"), [...about, `up ${duration(status.uptime)}`].join(" · "));
  document.title = status.state === "serving" && status.ready ? "turnserver" : `${text} – turnserver`;
}

function bar(share, text, kind = "") {
  const fill = make("i", {});
  fill.style.inlineSize = `${Math.min(100, Math.max(0, share * 100))}%`;
  const [track, figure] = [make("span", { className: "track" }, fill), make("span", { className: "figure" }, text)];
  return make("span", { className: `bar ${kind}` }, track, figure);
}

const level = (share) => (share > 0.9 ? "bad" : share > 0.7 ? "warn" : "");

function certificate({ file, expires }) {
  const left = expires - Date.now() / 1000;
  const kind = left < 3 * 86_400 ? "bad" : left < 21 * 86_400 ? "warn" : "";
  const days = Math.floor(left / 86_400);
  const when = left < 0 ? `ended ${duration(-left)} ago` : `ends in ${days > 2 ? `${days} days` : duration(left)}`;
  const name = make("span", { className: "path", title: file }, file.split("/").at(-1));
  return make("li", {}, name, make("span", { className: `figure ${kind}` }, `${when}, ${date(expires)}`));
}

function showServer(status) {
  const { workers, listeners, certificates, ports, allocations, connections, kernel_drops, offload, traffic } = status;
  const list = (items) => make("ul", {}, ...items);
  const facts = [["Started", `${new Date(status.started * 1000).toLocaleString("en-GB")}`]];
  facts.push(["Sessions so far", count(allocations.total)]);
  facts.push(["Connections", `${count(connections)} over TCP, TLS and DTLS`]);
  facts.push(["Workers", list(workers.map(({ worker, load }) => {
    const share = load ?? 0;
    const text = load === null ? "–" : `${Math.round(share * 100)} %`;
    return make("li", {}, make("span", {}, `${worker}`), bar(share, text, level(share)));
  }))]);
  facts.push(["Relay ports", list(ports.map(({ address, protocol, used, size }) => {
    const share = size > 0 ? used / size : 1;
    return make("li", {}, make("span", {}, `${address} ${protocol}`), bar(share, `${count(used)} of ${count(size)}`, level(share)));
  }))]);
  facts.push(["Listeners", list(listeners.map(({ transport, address }) => {
    const drops = kernel_drops.find((one) => transport === "udp" && one.address === address)?.datagrams ?? 0;
    const lost = drops > 0 ? make("span", { className: "figure warn" }, `kernel dropped ${count(drops)}`) : null;
    return make("li", {}, make("span", { className: "path" }, address), make("span", { className: "tag" }, transport), lost);
  }))]);
  if (offload.mode !== "off") {
    const [part, all] = [offload, traffic].map(({ to_peers, to_clients }) => to_peers.packets + to_clients.packets);
    const share = all > 0 ? ` (${Math.round((part / all) * 100)} % of packets so far)` : "";
    facts.push(["By the kernel", offload.mode === "unavailable" ? offload.details : `${offload.details}${share}`]);
  }
  facts.push(["Certificates", certificates.length > 0 ? list(certificates.map(certificate)) : "none"]);
  const shown = JSON.stringify(facts.map(([name, value]) => [name, value.textContent ?? value]));
  const target = byId("server-facts");
  // Only what has changed: whoever has selected something keeps it.
  if (target.dataset.shown !== shown) {
    target.dataset.shown = shown;
    target.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }
}

