// Drives the web page of management in a headless Chromium and prints what it has seen as one JSON object.
//
//   node manage.mjs overview|sessions|test|foreign|locked '{"url": "http://127.0.0.1:9641/", "token": "…", …}'
//
// The caller judges the result.

import { createServer } from "node:http";
import { once } from "node:events";
import { LIMIT, launch, until } from "./chromium.mjs";

const text = (page, selector) => page.locator(selector).innerText();
const texts = (page, selector) => page.locator(selector).allInnerTexts();

// Opens the page; whatever it complains of, and whatever it asks of others, is kept.
async function open(browser, { url }, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  const seen = { complaints: [], elsewhere: [] };
  page.on("pageerror", (error) => seen.complaints.push(error.message));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.complaints.push(message.text()));
  page.on("dialog", (dialog) => {
    seen.complaints.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => request.url().startsWith(url) || seen.elsewhere.push(request.url()));
  const response = await page.goto(url);
  seen.policy = response.headers()["content-security-policy"];
  return { page, seen };
}

// Gives the token, by keyboard alone.
async function enter(page, token) {
  await page.locator("#token[open]").waitFor();
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
}

async function open_with_token(browser, given, options) {
  const opened = await open(browser, given, options);
  await enter(opened.page, given.token);
  await opened.page.locator("#token:not([open])").waitFor({ state: "attached" });
  // The browser itself writes of each 401 that was asked for on purpose.
  opened.seen.complaints = opened.seen.complaints.filter((text) => !text.includes("401 (Unauthorized)"));
  return opened;
}

async function overview(browser, given) {
  const { page, seen } = await open(browser, given);
  await enter(page, `${given.token}x`);
  const wrong = page.locator("#token-wrong");
  await wrong.waitFor();
  const refused = await wrong.innerText();
  await page.keyboard.press("Control+A");
  await page.keyboard.type(given.token);
  await page.keyboard.press("Enter");
  await page.locator("#token:not([open])").waitFor({ state: "attached" });
  seen.complaints = seen.complaints.filter((text) => !text.includes("401 (Unauthorized)"));

  await page.locator(`#plot-sessions .value:text-is("${given.sessions}")`).waitFor();
  const line = () => page.locator("#plot-traffic path.line.c0").getAttribute("d");
  const first = await until("the first of the plot", line);
  const moves = await until("the plot", async () => (await line()) !== first);
  await until("traffic", async () => /[kM]bit\/s$/.test(await text(page, "#plot-traffic .value")));
  for (const [plot, words] of [["refusals", "401 wrong credentials"], ["drops", "no permission"]]) {
    await page.locator(`#plot-${plot} .legend li:visible`, { hasText: words }).waitFor();
  }
  await page.locator("#events-list li", { hasText: "wrong credentials" }).first().waitFor();
  await page.locator("#sessions-rows tr").first().waitFor();
  const rate = page.locator("#sessions-rows small", { hasText: "bit/s" });
  await rate.first().waitFor();

  const views = [];
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1440, 800, 360]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 800 });
      views.push(await page.evaluate(([colorScheme, width]) => ({
        colorScheme, width,
        scrolls: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        ground: getComputedStyle(document.body).backgroundColor,
        ink: getComputedStyle(document.body).color,
      }), [colorScheme, width]));
    }
  }
  return {
    ...seen, refused, moves, views,
    state: await text(page, "#state"),
    label: await page.locator("#plot-traffic svg").getAttribute("aria-label"),
    users: await texts(page, "#sessions-rows td.user b"),
    images: await page.locator("main img").count(),
    facts: await text(page, "#server-facts"),
    stored: await page.evaluate(() => [Object.keys(sessionStorage), Object.keys(localStorage), document.cookie]),
  };
}

async function sessions(browser, given) {
  const { page, seen } = await open_with_token(browser, given);
  const rows = page.locator("#sessions-rows tr");
  const page_of = async (first) => {
    await page.locator("#sessions-page", { hasText: new RegExp(`^${first} to`) }).waitFor();
    return [await text(page, "#sessions-page"), await rows.count()];
  };
  const pages = [await page_of(1)];
  await page.click("#sessions-after");
  pages.push(await page_of(16));
  await page.click("#sessions-before");
  pages.push(await page_of(1));

  await page.fill("#sessions-search", given.search);
  await page.locator("#sessions-count", { hasText: "1 found" }).waitFor();
  const found = await texts(page, "#sessions-rows td.user b");

  // From here on there is nothing but keys.
  const active = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.id);
  const reach = async (label) => {
    for (let at = 0; at < 60 && !(await active()).startsWith(label); at += 1) {
      await page.keyboard.press("Tab");
    }
    return active();
  };
  await reach("About");
  await page.keyboard.press("Enter");
  await page.locator("#confirm dt", { hasText: "Permissions" }).waitFor();
  const about = await text(page, "#confirm");
  await page.keyboard.press("Enter");
  await page.locator("#confirm:not([open])").waitFor({ state: "attached" });
  const button = await reach("Disconnect");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  await page.keyboard.press("Enter");
  await page.locator("#confirm[open]").waitFor();
  const question = await text(page, "#confirm");
  await page.keyboard.press("Escape");
  await page.locator("#confirm:not([open])").waitFor({ state: "attached" });
  const back = await active();
  const still = await rows.count();
  await page.keyboard.press("Enter");
  await page.locator("#confirm[open]").waitFor();
  await page.keyboard.press("Enter");
  await page.locator("#sessions-said", { hasText: "is disconnected" }).waitFor();
  await page.locator("#sessions-count", { hasText: "none found" }).waitFor();
  const after = await active();
  await page.locator("#events-list li", { hasText: "disconnected by an operator" }).waitFor();
  return { ...seen, pages, found, about, button, outline, question, back, still, after };
}

async function test(browser, given) {
  const { page, seen } = await open_with_token(browser, given);
  await until("where to test", () => page.inputValue("#test-uris"));
  const run = async () => {
    await page.locator("#test-run").focus();
    await page.keyboard.press("Enter");
    const done = () => page.evaluate(() => !document.querySelector("#test-run").hasAttribute("aria-disabled"));
    await until("the test", done);
    const result = async (item) => [
      await item.getAttribute("data-transport"),
      { verdict: await item.getAttribute("data-verdict"), words: await item.locator("p").innerText() },
    ];
    return {
      note: await text(page, "#test-note"),
      summary: await text(page, "#test-summary"),
      results: Object.fromEntries(await Promise.all((await page.locator("#test-results > li").all()).map(result))),
    };
  };
  const uris = (await page.inputValue("#test-uris")).split("\n");
  const runs = [await run()];
  for (const [user, password] of given.credentials) {
    await page.fill("#test-user", user);
    await page.fill("#test-password", password);
    runs.push(await run());
  }
  // Nobody is there.
  await page.fill("#test-uris", given.nobody);
  runs.push(await run());
  await page.fill("#test-uris", "turn:turn.example.org:99999999");
  runs.push(await run());
  return { ...seen, uris, runs };
}

// Without a token in the configuration: the overview works, and the rest says why it does not.
async function locked(browser, given) {
  const { page, seen } = await open(browser, given);
  await page.locator('#plot-sessions .value:text-is("0")').waitFor();
  await page.locator("#sessions-note").waitFor();
  await until("where to test", () => page.inputValue("#test-uris"));
  await page.click("#test-run");
  await page.locator("#test-note", { hasText: "user name" }).waitFor();
  return {
    elsewhere: seen.elsewhere,
    sessions: await text(page, "#sessions-note"),
    events: await text(page, "#events-state"),
    test: await text(page, "#test-note"),
    asked: await page.locator("#token[open]").count(),
  };
}

// A page of another origin on this host tries to manage the server, and even has the token.
async function foreign(browser, { url, token }) {
  const server = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<title>foreign</title>"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const page = await (await browser.newContext()).newPage();
  await page.goto(`http://localhost:${server.address().port}/`);
  const statuses = [];
  page.on("response", (response) => statuses.push([response.request().method(), new URL(response.url()).pathname, response.status()]));
  const outcomes = await page.evaluate(async ([url, token]) => {
    const attempt = async (path, options) => {
      try {
        const response = await fetch(url + path, options);
        return response.type;
      } catch {
        return "refused";
      }
    };
    return [
      await attempt("v1/drain", { method: "POST", mode: "no-cors", body: "{}" }),
      await attempt("v1/drain", { method: "POST", headers: { Authorization: `Bearer ${token}` } }),
      await attempt("status", {}),
    ];
  }, [url, token]);
  await page.setContent(`<form method="post" action="${url}v1/drain"><button>win</button></form>`);
  await page.click("button");
  await page.waitForLoadState();
  const form = await page.locator("body").innerText();
  server.close();
  return { outcomes, statuses, form };
}

const modes = { overview, sessions, test, foreign, locked };
const [mode, given] = process.argv.slice(2);
if (!(mode in modes) || given === undefined) {
  console.error(`usage: node manage.mjs ${Object.keys(modes).join("|")} WHAT-IS-GIVEN-AS-JSON`);
  process.exit(64);
}
const browser = await launch(["turn.example.org"]);
try {
  console.log(JSON.stringify(await modes[mode](browser, JSON.parse(given))));
} finally {
  await browser.close();
}
