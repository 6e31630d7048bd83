// Opens the page in headless Chromium, and notes every request.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { serve } from "../server.mjs";

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", // for root in containers; the page is our own
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
  "--no-first-run",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
];

/**
 * The page when its networks are loaded, or failed to load.
 *
 * `film` is what the camera shows; `answers` replaces files: the end of their address -> what the
 * server answers. Of the result, `requests` are the addresses that the page asked for, and `errors`
 * what it did not catch.
 */
export async function openPage({ film, answers = {} } = {}) {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM}: no such program; set CHROMIUM`);
  const server = await serve();
  const address = `http://127.0.0.1:${server.address().port}/`;
  const args = [...FLAGS];
  if (film) args.push(`--use-file-for-fake-video-capture=${film}`);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args });
  const context = await browser.newContext({ acceptDownloads: true });
  for (const [name, answer] of Object.entries(answers)) {
    await context.route(`**/${name}`, (route) => route.fulfill(answer));
  }
  const requests = [];
  const errors = [];
  context.on("request", (request) => requests.push(request.url()));
  const page = await context.newPage();
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(address);
  const loaded = () =>
    !document.getElementById("file").disabled || document.getElementById("problem").textContent;
  await page.waitForFunction(loaded, null, { timeout: 120_000 });
  const close = async () => {
    await browser.close();
    server.close();
  };
  return { page, address, requests, errors, close };
}
