// One URI of a STUN or TURN server tried in this browser, and what came of it in words.

/** Milliseconds that gathering, and what follows it, may take. */
const GATHERING = 20_000;
const CONNECTING = 10_000;
const ECHOES = 20;
const BULK = 1 << 20;
const PIECE = 16 << 10;

/** What a URI says (RFC 7064 §3.1, RFC 7065 §3.1); `null` if it is none. */
export function parse(uri) {
  const found = /^(stuns?|turns?):(\[[0-9a-f:.]+\]|[^\s:?/@[\]]+)(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?$/i.exec(uri);
  if (!found) {
    return null;
  }
  const [, scheme, host, port, written] = found;
  const is_secure = scheme.toLowerCase().endsWith("s");
  const is_turn = scheme.toLowerCase().startsWith("turn");
  const over = written?.toLowerCase() ?? (is_secure ? "tcp" : "udp");
  const transport = is_secure ? { tcp: "TLS", udp: "DTLS" }[over] : over.toUpperCase();
  return { uri, scheme, host, port: Number(port ?? (is_secure ? 5349 : 3478)), is_turn, transport };
}

/** The same URI with another host. */
export const withHost = (uri, host) => uri.replace(/^(\w+:)(\[[^\]]*\]|[^:?]*)/, (_, scheme) => scheme + host);

/** Gathers candidates with one server. */
export async function gather(server) {
  const connection = new RTCPeerConnection({ iceServers: [server], iceCandidatePoolSize: 0 });
  const begin = performance.now();
  const found = { candidates: [], errors: [], complete: true, milliseconds: null };
  const done = new Promise((resolve) => {
    connection.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate === null) {
        resolve();
      } else if (candidate.candidate !== "") {
        const { type, protocol, address, port, relayProtocol } = candidate;
        found.candidates.push({ type, protocol, address, port, relayProtocol, milliseconds: performance.now() - begin });
      }
    });
    connection.addEventListener("icecandidateerror", ({ errorCode, errorText, address }) => {
      found.errors.push({ code: errorCode, text: errorText ?? "", address });
    });
  });
  const late = new Promise((resolve) => {
    setTimeout(() => {
      found.complete = false;
      resolve();
    }, GATHERING);
  });
  try {
    connection.createDataChannel("test");
    await connection.setLocalDescription(await connection.createOffer());
    await Promise.race([done, late]);
  } finally {
    connection.close();
  }
  found.milliseconds = performance.now() - begin;
  return found;
}

/** Sends data from one relayed address of the server to another and back. Throws an Error that says what did not work. */
export async function loop(server) {
  const ends = [0, 1].map(() => new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: "relay" }));
  const errors = [];
  ends.forEach((end, at) => {
    const other = ends[1 - at];
    end.addEventListener("icecandidate", ({ candidate }) => candidate && other.addIceCandidate(candidate).catch(() => {}));
    end.addEventListener("icecandidateerror", ({ errorCode, errorText }) => errors.push({ code: errorCode, text: errorText ?? "" }));
  });
  try {
    const [near, far] = ends.map((end) => end.createDataChannel("test", { negotiated: true, id: 1 }));
    for (const channel of [near, far]) {
      channel.binaryType = "arraybuffer";
    }
    // The far end sends back what is short and counts the rest.
    let arrived = 0;
    far.addEventListener("message", ({ data }) => {
      arrived += data.byteLength;
      if (data.byteLength < PIECE || arrived === BULK) {
        far.send(new Uint8Array(1));
      }
      if (data.byteLength < PIECE) {
        arrived = 0;
      }
    });
    const [caller, callee] = ends;
    const opened = new Promise((resolve) => near.addEventListener("open", resolve, { once: true }));
    await caller.setLocalDescription(await caller.createOffer());
    await callee.setRemoteDescription(caller.localDescription);
    await callee.setLocalDescription(await callee.createAnswer());
    await caller.setRemoteDescription(callee.localDescription);
    await within(CONNECTING + 5000, opened, "the two relayed addresses do not reach each other", errors);
    const answer = () => new Promise((resolve) => near.addEventListener("message", resolve, { once: true }));
    const times = [];
    for (let at = 0; at < ECHOES; at += 1) {
      const begin = performance.now();
      const answered = answer();
      near.send(new Uint8Array(1));
      await within(CONNECTING, answered, "data are lost on the way", errors);
      times.push(performance.now() - begin);
    }
    const begin = performance.now();
    const answered = answer();
    const piece = new Uint8Array(PIECE);
    for (let sent = 0; sent < BULK; sent += PIECE) {
      near.send(piece);
    }
    await within(CONNECTING * 2, answered, "a megabyte does not arrive in time", errors);
    const seconds = (performance.now() - begin) / 1000;
    times.sort((one, other) => one - other);
    return { milliseconds: times[times.length >> 1], bits: (BULK * 8) / seconds };
  } finally {
    ends.forEach((end) => end.close());
  }
}

async function within(milliseconds, promise, otherwise, errors) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      const worst = errors.find(({ code }) => code < 700);
      reject(Object.assign(new Error(otherwise), { code: worst?.code }));
    }, milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const REFUSED = {
  300: "The server sends clients elsewhere (300): it drains or shares its load, and the other server did not take this one.",
  400: "The server takes the request for malformed (400).",
  401: "The server refuses the user name or the password (401). Time-limited credentials may be over: compare the clocks.",
  403: "The server forbids it (403): a rule keeps this client or this user out.",
  420: "The server does not know an attribute that the browser uses (420).",
  437: "The server has another allocation on this connection (437), or has lost it.",
  438: "The nonce is refused again and again (438): something between browser and server changes the client's address.",
  440: "The server relays no addresses of the family that was asked for (440).",
  441: "The allocation is another user's (441).",
  442: "The server does not relay UDP (442).",
  486: "A quota is reached (486): too many allocations of this user, or in all.",
  500: "The server has an error of its own (500): its log says which.",
  508: "The server has no room (508): no relay port is left, or it drains.",
};

const NOTHING = {
  UDP: "nothing comes back over UDP: a firewall drops UDP here, on the way, or at the server, or nothing listens on this port",
  TCP: "no connection over TCP: a firewall is between, or nothing listens on this port",
  TLS: "no connection over TLS: a firewall is between, nothing listens on this port, or the browser does not trust the certificate: "
    + "its names, its authority, or its dates",
};

/** What an error of gathering means (W3C WebRTC, RTCPeerConnectionIceErrorEvent), for somebody who runs the server. */
export function explain({ code, text }, { transport, host, port }) {
  if (code < 700) {
    return REFUSED[code] ?? `The server refuses it with ${code}${text ? ` (${text})` : ""}.`;
  }
  if (/lookup|resolve/i.test(text)) {
    return `The name ${host} is not found (${code}).`;
  }
  const loopback = isLoopback(host)
    ? " The address is this machine's own: browsers hardly use that for calls. Try an address that other hosts reach." : "";
  return `The browser gets nowhere with ${host}, port ${port} (${code}): ${NOTHING[transport] ?? "no answer"}.${loopback}`;
}

export const isLoopback = (host) => /^(localhost|.*\.localhost|127\.[\d.]+|\[?::1\]?)$/i.test(host);
