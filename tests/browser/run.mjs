// Drives a headless Chromium and prints what it has seen as one JSON object.
//
//   node run.mjs gather '{"urls": "turn:127.0.0.1:3478?transport=udp", "username": "…", "credential": "…"}'
//   node run.mjs call   '{…}'
//
// The page is served on localhost, since camera and hashing need a secure context. The caller judges the result; here
// only that nothing takes longer than it may.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { once } from "node:events";
import { LIMIT, inTime, launch, until } from "./chromium.mjs";

const FILE_BYTES = 5 * 1024 * 1024;

// Serves the page on a port of localhost.
async function servePage() {
  const files = { "/": ["page.html", "text/html"], "/page.js": ["page.js", "text/javascript"] };
  const server = createServer(async (request, response) => {
    const [name, type] = files[request.url] ?? [];
    if (name === undefined) {
      response.writeHead(404).end();
      return;
    }
    const body = await readFile(new URL(name, import.meta.url));
    response.writeHead(200, { "content-type": type }).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://localhost:${server.address().port}/` };
}

// Opens the page in a context (a browser profile) of its own.
async function open(browser, url) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  page.on("pageerror", (error) => console.error("page:", error.message));
  page.on("console", (message) => console.error("page:", message.text()));
  await page.goto(url);
  return page;
}

async function gather(browser, url, iceServer) {
  const page = await open(browser, url);
  return inTime("gathering", page.evaluate((server) => gather(server), iceServer));
}

async function call(browser, url, iceServer) {
  const pages = await Promise.all([open(browser, url), open(browser, url)]);
  for (const [index, page] of pages.entries()) {
    const other = pages[1 - index];
    // One signal after the other, in order.
    let last = Promise.resolve();
    await page.exposeFunction("signal", (message) => {
      last = last.then(() => other.evaluate((received) => thisEnd.receiveSignal(received), message));
      return last;
    });
  }
  for (const page of pages) {
    await page.evaluate(async (server) => {
      globalThis.thisEnd = new Call(server, globalThis.signal);
      await thisEnd.start();
    }, iceServer);
  }
  await inTime("the offer", pages[0].evaluate(() => thisEnd.offer()));
  await inTime("the data channel", Promise.all(pages.map((page) => page.evaluate(() => thisEnd.opened.then(() => {})))));

  // Video from both, and more of it a moment later.
  const frames = [];
  for (const page of pages) {
    const first = await until("the first frame", () => page.evaluate(() => thisEnd.framesDecoded()));
    const later = await until("more frames", () => page.evaluate(
      async (before) => {
        const now = await thisEnd.framesDecoded();
        return now > before ? now : 0;
      },
      first + 10,
    ));
    frames.push([first, later]);
  }

  // A file each way.
  const files = [];
  for (const [sender, receiver] of [[pages[0], pages[1]], [pages[1], pages[0]]]) {
    await receiver.evaluate((length) => thisEnd.expectFile(length), FILE_BYTES);
    const started = Date.now();
    const sent = await inTime("sending", sender.evaluate((length) => thisEnd.sendFile(length), FILE_BYTES));
    const received = await inTime("receiving", receiver.evaluate(() => thisEnd.received));
    files.push({ bytes: FILE_BYTES, sent, received, milliseconds: Date.now() - started });
  }

  const ends = [];
  for (const [index, page] of pages.entries()) {
    const pair = await until("a candidate pair", () => page.evaluate(() => thisEnd.selectedPair()));
    const framesAtEnd = await page.evaluate(() => thisEnd.framesDecoded());
    ends.push({ pair, framesDecoded: [...frames[index], framesAtEnd] });
  }
  await Promise.all(pages.map((page) => page.evaluate(() => thisEnd.connection.close())));
  return { ends, files };
}

const modes = { gather, call };
const [mode, iceServer] = process.argv.slice(2);
if (!(mode in modes) || iceServer === undefined) {
  console.error("usage: node run.mjs gather|call ICE-SERVER-AS-JSON");
  process.exit(64);
}
const { server, url } = await servePage();
const browser = await launch();
try {
  const result = await modes[mode](browser, url, JSON.parse(iceServer));
  console.log(JSON.stringify({ browser: browser.version(), ...result }));
} finally {
  await browser.close();
  server.close();
}
