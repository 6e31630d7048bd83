// Tests of the page in headless Chromium; README.md tells how to run them.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openPage } from "./browser.mjs";

const FERJAX = process.env.FERJAX ?? "ferjax";
const DETECTOR = process.env.DETECTOR ?? "fer-yolo-mamba-nano-scenes";
const CLASSIFIER = process.env.CLASSIFIER ?? "fermam-nano-ferplus";
const PORTRAIT = fileURLToPath(new URL("portrait.jpg", import.meta.url));
const WAIT = { timeout: 60_000 };

let folder, opened, page;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "ferjax-web-"));
  opened = await openPage();
  page = opened.page;
});

after(async () => {
  await opened?.close();
  await rm(folder, { recursive: true });
});

afterEach(() => {
  assert.deepEqual(opened.errors, []);
  for (const url of opened.requests) {
    assert.ok(/^(blob|data):/.test(url) || url.startsWith(opened.address), url);
  }
});

/** Gives the page a file, and waits for its results. */
async function choose(file) {
  const name = file.split("/").pop();
  await page.evaluate(() => (document.getElementById("picture").ariaLabel = ""));
  await page.setInputFiles("#file", file);
  await page.waitForFunction(
    (name) => document.getElementById("picture").ariaLabel.startsWith(`${name}.`),
    name,
    WAIT,
  );
}

/** The text of a message about a file that cannot be used. */
async function problem() {
  await page.waitForFunction(() => document.getElementById("problem").textContent, null, WAIT);
  return page.textContent("#problem");
}

/** What "Save as JSON" writes. */
async function saved() {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save")]);
  return JSON.parse(await readFile(await download.path(), "utf8"));
}

/** Writes a PNG with the portrait at several places: [x, y, side]. */
async function compose(name, width, height, places) {
  const bytes = [...(await readFile(PORTRAIT))];
  const png = await page.evaluate(
    async ({ bytes, width, height, places }) => {
      const portrait = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
      const canvas = new OffscreenCanvas(width, height);
      const pen = canvas.getContext("2d");
      pen.fillStyle = "#7a8b99";
      pen.fillRect(0, 0, width, height);
      for (const [x, y, side] of places) pen.drawImage(portrait, x, y, side, side);
      return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
    },
    { bytes, width, height, places },
  );
  const file = join(folder, name);
  await writeFile(file, Buffer.from(png));
  return file;
}

const largest = {}; // differences

function assertNear(actual, expected, tolerance, what) {
  largest[tolerance] = Math.max(largest[tolerance] ?? 0, Math.abs(actual - expected));
  assert.ok(Math.abs(actual - expected) <= tolerance, `${what}: ${actual} and ${expected}`);
}

function assertScores(actual, expected) {
  assert.equal(actual.expression, expected.expression);
  assertNear(actual.score, expected.score, 1e-3, "score");
  assert.deepEqual(Object.keys(actual.scores), Object.keys(expected.scores));
  for (const [name, score] of Object.entries(expected.scores)) {
    assertNear(actual.scores[name], score, 1e-3, name);
  }
}

test("agrees with `ferjax predict`", async (t) => {
  const files = [
    PORTRAIT,
    await compose("large.png", 901, 603, [[40, 20, 560], [610, 250, 280]]),
    await compose("cut.png", 240, 333, [[-90, -60, 400]]), // the crop leaves the picture
    await compose("empty.png", 500, 400, []),
  ];
  const models = ["--checkpoint", CLASSIFIER, "--detector", DETECTOR];
  execFileSync(FERJAX, ["predict", ...files, ...models, "--no-annotated", "--output", folder]);
  const { images } = JSON.parse(await readFile(join(folder, "predictions.json"), "utf8"));
  let faces = 0;
  for (const [i, file] of files.entries()) {
    await choose(file);
    const [actual, expected] = [await saved(), images[i]];
    assert.deepEqual([actual.width, actual.height], [expected.width, expected.height]);
    assert.equal(actual.faces.length, expected.faces.length, file);
    for (const [k, face] of expected.faces.entries()) {
      face.box.forEach((x, c) => assertNear(actual.faces[k].box[c], x, 1, `${file}, box`));
      assertScores(actual.faces[k], face);
      assertScores(actual.faces[k].detection, face.detection);
      faces += 1;
    }
  }
  t.diagnostic(`${faces} faces; largest differences: box ${largest[1]}, scores ${largest[1e-3]}`);
  assert.ok(faces >= 4, `${faces} faces were compared`);
});

test("a broken file gives a message, and the next file is shown", async () => {
  const bytes = await readFile(PORTRAIT);
  const broken = { "text.jpg": "no picture", "empty.png": "", "short.jpg": bytes.subarray(0, 200) };
  for (const [name, content] of Object.entries(broken)) {
    const file = join(folder, name);
    await writeFile(file, content);
    await page.setInputFiles("#file", file);
    assert.match(await problem(), new RegExp(`^${name} cannot be read as a picture .*Choose a JP`));
    await choose(PORTRAIT);
    assert.equal(await page.textContent("#problem"), "");
  }
});

test("a picture can be dropped", async () => {
  const bytes = [...(await readFile(PORTRAIT))];
  await page.evaluate((bytes) => {
    const files = new DataTransfer();
    files.items.add(new File([new Uint8Array(bytes)], "dropped.jpg"));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: files, cancelable: true }));
  }, bytes);
  await page.getByRole("img", { name: /^dropped\.jpg\. 1 face found/ }).waitFor(WAIT);
});

test("the camera runs and stops, by the keyboard", async () => {
  await page.focus("#file");
  const asked = page.waitForEvent("filechooser");
  await page.keyboard.press("Space");
  await (await asked).setFiles([]);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "camera");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid");
  await page.keyboard.press("Space");
  await page.getByRole("button", { name: "Stop the camera", pressed: true }).waitFor(WAIT);
  await page.getByRole("img", { name: /^Camera\. / }).waitFor(WAIT);
  const seen = new Set();
  for (let i = 0; i < 200 && seen.size < 4; i++) {
    seen.add(await page.textContent("#timing"));
    await page.waitForTimeout(100);
  }
  assert.ok(seen.size >= 4, "four frames with their times");
  assert.match([...seen].pop(), /^\d+ ms for a frame, [\d.]+ frames\/s$/);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Use the camera", pressed: false }).waitFor(WAIT);
});

test("a screen reader gets names, values and announcements", async () => {
  await choose(PORTRAIT);
  assert.match(await page.getByRole("status").textContent(), /^1 face found: 1 happiness\.$/);
  assert.equal(await page.getByRole("meter").count(), 8);
  assert.ok((await page.getByRole("meter", { name: "happiness" }).getAttribute("value")) > 0.5);
  assert.equal(await page.getByLabel("Choose a picture").getAttribute("type"), "file");
  assert.equal(await page.getByRole("heading", { name: /^happiness, 0\.\d\d$/ }).count(), 1);
  assert.equal(await page.getAttribute("#problem", "role"), "alert");
  assert.equal(await page.getAttribute("html", "lang"), "en");
});

test("text has a contrast of 4.5 or more, in light and dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    const ratios = await page.evaluate(() => {
      const level = (colour) => {
        const parts = colour.match(/[\d.]+/g).slice(0, 3).map((x) => x / 255);
        const linear = parts.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
      };
      const style = (selector) => getComputedStyle(document.querySelector(selector));
      const page = style("body").backgroundColor;
      const pairs = [
        [style("body").color, page],
        [style("#problem").color, page],
        [style("#save").color, style("#save").backgroundColor],
        [style("#save").borderTopColor, page],
      ];
      return pairs.map((pair) => {
        const [low, high] = pair.map(level).sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
      });
    });
    for (const ratio of ratios) assert.ok(ratio >= 4.5, `${colorScheme}: ${ratios}`);
  }
});

test("requests to elsewhere are forbidden, also to the worker", async () => {
  const outside = () => fetch("https://example.com/").then(() => "sent", () => "refused");
  const before = opened.requests.length;
  assert.equal(await page.evaluate(outside), "refused");
  assert.equal(await page.workers()[0].evaluate(outside), "refused");
  assert.deepEqual(opened.requests.slice(before), []);
});

test("a missing or a wrong network gives a message", async () => {
  const classifier = fileURLToPath(new URL("../site/models/classifier.onnx", import.meta.url));
  const wrong = [
    [{ status: 404 }, "models/detector.onnx: 404 Not Found"],
    [{ body: "<html>" }, "the file has no description of ferjax: write it with `ferjax export`"],
    [{ path: classifier }, "models/detector.onnx is for classification; expected an export for"],
  ];
  for (const [answer, message] of wrong) {
    const other = await openPage({ answers: { "detector.onnx": answer } });
    try {
      const text = await other.page.getByRole("alert").textContent();
      assert.ok(text.startsWith(`The networks cannot be loaded (${message}`), text);
      assert.equal(await other.page.isEnabled("#camera"), false);
    } finally {
      await other.close();
    }
  }
});
