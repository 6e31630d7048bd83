// Frames per second of the page on a fake camera: node speed.mjs [FILM.mjpeg] [SECONDS]
//
// A film may be JPEG files of one size, one after the other: cat *.jpg > film.mjpeg
import { openPage } from "./test/browser.mjs";

const [film, seconds = 20] = process.argv.slice(2);
const { page, close } = await openPage({ film });
console.log(await page.textContent("#status"));
await page.click("#camera");
await page.waitForFunction(() => document.getElementById("timing").textContent);
await page.waitForTimeout(5000); // more workers load
const times = await page.evaluate(async (milliseconds) => {
  const times = [];
  let last = 0;
  new MutationObserver(() => {
    const now = performance.now();
    if (last) times.push(now - last);
    last = now;
  }).observe(document.getElementById("timing"), { childList: true });
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  return times;
}, 1000 * seconds);
const faces = await page.locator("#faces > li").count();
times.sort((a, b) => a - b);
const [total, at] = [times.reduce((a, b) => a + b), (p) => times[Math.floor(p * times.length)]];
const rate = (1000 * times.length) / total;
console.log(
  `${times.length} frames, ${rate.toFixed(2)} frames/s; between frames: median ` +
    `${at(0.5).toFixed(0)} ms, 90 % under ${at(0.9).toFixed(0)} ms; faces in the last: ${faces}`,
);
await close();
