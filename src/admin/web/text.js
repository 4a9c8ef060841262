// Elements and words. Everything that a server or a user has written becomes text nodes and never markup.

/** An element; properties are set, `aria` and `data` as attributes, children are elements or text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) {
      element[name] = value;
    } else {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Changes text only where it differs, so that nothing is announced or selected anew. */
export function say(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

const scaled = (value, units, base) => {
  let at = 0;
  while (value >= base && at + 1 < units.length) {
    value /= base;
    at += 1;
  }
  const digits = at === 0 ? (value < 10 && value % 1 ? 1 : 0) : value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)} ${units[at]}`.trim();
};

export const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"], 1000);
export const bits = (value) => scaled(value, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"], 1000);
export const count = (value) => (value >= 100_000 ? scaled(value, ["", "k", "M", "G"], 1000) : Math.round(value).toLocaleString("en"));
export const rate = (value) => `${value < 10 && value % 1 ? value.toFixed(1) : count(value)}/s`;

/** A time in seconds, in its two largest units. */
export function duration(seconds) {
  const units = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.max(0, Math.round(seconds));
  const first = units.findIndex(([, length]) => left >= length);
  if (first < 0) {
    return "0 s";
  }
  return units
    .slice(first, first + 2)
    .map(([unit, length]) => {
      const whole = Math.floor(left / length);
      left -= whole * length;
      return whole > 0 ? `${whole} ${unit}` : "";
    })
    .filter(Boolean)
    .join(" ");
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
export const date = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);

/** "a", "a and b", "a, b and c". */
export function enumerate(words) {
  const last = words.at(-1) ?? "";
  return words.length < 2 ? last : `${words.slice(0, -1).join(", ")} and ${last}`;
}

/** What error codes of STUN and TURN say, for people. */
export const CODES = {
  300: "sent to another server",
  400: "bad request",
  401: "wrong credentials",
  403: "forbidden",
  405: "not offered",
  420: "unknown attribute",
  437: "no such allocation",
  438: "stale nonce",
  440: "address family",
  441: "another user's",
  442: "transport to peers",
  443: "family of the peer",
  446: "connection exists",
  447: "peer not reached",
  486: "quota reached",
  500: "server error",
  508: "no capacity",
};

export const refusal = (code) => (CODES[code] ? `${code} ${CODES[code]}` : `${code}`);
