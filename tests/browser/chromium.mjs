// A headless Chromium that talks to nobody but this host.

import { setTimeout as delay } from "node:timers/promises";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const LIMIT = 60_000;

const RULES = "--host-resolver-rules=";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--autoplay-policy=no-user-gesture-required",
  // A camera and a microphone that need no hardware and no click.
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  // Gather on loopback, with addresses instead of mDNS names.
  "--allow-loopback-in-peer-connection",
  "--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter,OptimizationHints,Translate",
  // Whatever else the browser would like to talk to does not exist.
  `${RULES}MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1`,
];

// Starts it; `names` are hosts that are to be found at 127.0.0.1.
export function launch(names = []) {
  const rules = names.map((name) => `MAP ${name} 127.0.0.1`);
  const args = FLAGS.map((flag) => (flag.startsWith(RULES) ? `${RULES}${[...rules, flag.slice(RULES.length)].join(", ")}` : flag));
  return chromium.launch({ executablePath: CHROMIUM, headless: true, args });
}

// Rejects when `promise` takes too long.
export async function inTime(what, promise) {
  const cancel = new AbortController();
  const late = delay(LIMIT, undefined, { signal: cancel.signal }).then(() => {
    throw new Error(`${what}: not within ${LIMIT} ms`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    cancel.abort();
  }
}

// Asks again until `answer` is truthy; statistics have no event to wait for.
export async function until(what, ask) {
  const deadline = Date.now() + LIMIT;
  for (;;) {
    const answer = await ask();
    if (answer) {
      return answer;
    }
    if (Date.now() > deadline) {
      throw new Error(`${what}: not within ${LIMIT} ms`);
    }
    await delay(100);
  }
}
