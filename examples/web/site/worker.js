// The worker: it reads pixels and runs the networks, so that the page answers meanwhile.
//
// The first message is { gpu }: whether to try WebGPU. Each later one, { id, source }, gets the
// answer { id, picture, faces } or { id, error }. Messages with the id 0 come when the networks can
// be used, and when they moved to the GPU.

import { faceView, letterbox } from "./pixels.js";

const MAX_PIXELS = 2 ** 27;
const MAX_SIDE = 16384; // of a canvas
const MODELS = {
  detector: { url: "models/detector.onnx", task: "detection" },
  classifier: { url: "models/classifier.onnx", task: "classification" },
};

/** The description that `ferjax export` writes into an ONNX file: field 14 of its protobuf. */
function descriptionIn(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (!(byte & 128)) return value;
    }
  };
  const fields = function* (end) {
    while (at < end) {
      const tag = varint();
      if ((tag & 7) === 0) varint();
      else {
        const next = varint() + at;
        yield [tag >> 3, at, next];
        at = next;
      }
    }
  };
  const text = (start, end) => new TextDecoder().decode(bytes.subarray(start, end));
  for (const [number, start, end] of fields(bytes.length)) {
    if (number !== 14) continue;
    at = start;
    const [key, value] = [...fields(end)].map(([, from, to]) => text(from, to));
    if (key === "ferjax") return JSON.parse(value);
  }
  throw new Error("the file has no description of ferjax: write it with `ferjax export`");
}

async function fetchModel({ url, task }) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const description = descriptionIn(bytes);
  if (description.task !== task || description.raw) {
    const found = `${description.raw ? "raw outputs of " : ""}${description.task}`;
    throw new Error(`${url} is for ${found}; expected an export for ${task}, without --raw`);
  }
  return { bytes, description };
}

/** Both networks on "webgpu" or "wasm", and the seconds that one empty picture takes. */
async function open(backend, models) {
  const ort = await import(`./ort/ort.${backend}.min.mjs`);
  ort.env.wasm.numThreads = 1; // the page starts more workers instead
  const options = { executionProviders: [backend], logSeverityLevel: 3 };
  const networks = { ort, backend };
  for (const [role, { bytes, description }] of Object.entries(models)) {
    networks[role] = { session: await ort.InferenceSession.create(bytes, options), description };
  }
  const empty = new ImageData(64, 64);
  await networkFaces(empty, networks, [[0, 0, 64, 64]]); // compiles and allocates
  const start = performance.now();
  await networkFaces(empty, networks, [[0, 0, 64, 64]]);
  networks.seconds = (performance.now() - start) / 1000;
  return networks;
}

async function fetchModels() {
  const roles = Object.keys(MODELS);
  const models = await Promise.all(roles.map((role) => fetchModel(MODELS[role])));
  return Object.fromEntries(roles.map((role, i) => [role, models[i]]));
}

/** The networks on WebGPU, if there is one and it is faster; otherwise as given. */
async function openFaster(networks, models) {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter || adapter.info?.isFallbackAdapter) return networks; // it computes on the CPU
  try {
    const webgpu = await open("webgpu", models);
    return webgpu.seconds < networks.seconds ? webgpu : networks;
  } catch (error) {
    console.warn(`WebGPU is not used: ${error.message}`);
    return networks;
  }
}

/** The faces in RGBA pixels; with `given` boxes, these are classified if there are none. */
async function networkFaces(picture, { ort, detector, classifier }, given = []) {
  const { image_size: size } = detector.description;
  const { pixels, placement } = letterbox(picture, detector.description);
  const found = await detector.session.run({
    image: new ort.Tensor("uint8", pixels, [1, size, size, pixels.length / size ** 2]),
    placement: new ort.Tensor("float32", placement, [1, 6]),
  });
  const row = (name, i) => {
    const { data, dims } = found[name];
    const length = dims[2] ?? 1;
    return Array.from(data.subarray(i * length, (i + 1) * length));
  };
  const rows = [...found.mask.data.keys()].filter((i) => found.mask.data[i]);
  const faces = rows.map((i) => ({
    box: row("boxes", i),
    detection: expression(row("class_scores", i), detector.description),
  }));
  const boxes = faces.length ? faces.map(({ box }) => box) : given;
  if (!boxes.length) return [];
  const views = boxes.map((box) => faceView(picture, box, classifier.description));
  const side = classifier.description.image_size;
  const batch = new Uint8Array(views.length * views[0].length);
  views.forEach((view, i) => batch.set(view, i * view.length));
  const dims = [views.length, side, side, views[0].length / side ** 2];
  const image = new ort.Tensor("uint8", batch, dims);
  const { probabilities } = await classifier.session.run({ image });
  const count = classifier.description.class_names.length;
  return faces.map(({ box, detection }, i) => {
    const scores = Array.from(probabilities.data.subarray(i * count, (i + 1) * count));
    return { box, ...expression(scores, classifier.description), detection };
  });
}

/** The fields of a face in the file that `ferjax predict` writes. */
function expression(values, { class_names: names }) {
  const score = Math.max(...values);
  const scores = Object.fromEntries(names.map((name, i) => [name, values[i]]));
  return { score, expression: names[values.indexOf(score)], scores };
}

/** The upright pixels of an image file or a frame, on white where they are transparent. */
async function readPixels(source) {
  let bitmap = source;
  if (source instanceof Blob) {
    bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" });
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS || Math.max(width, height) > MAX_SIDE) {
    throw new RangeError(`it has ${width} x ${height} pixels; choose a smaller one`);
  }
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  return pen.getImageData(0, 0, width, height);
}

let networks; // those in use

async function start({ gpu }) {
  const models = await fetchModels();
  const wasm = await open("wasm", models);
  networks = wasm;
  self.postMessage({ id: 0, backend: wasm.backend });
  if (!gpu) return;
  networks = await openFaster(wasm, models);
  if (networks !== wasm) self.postMessage({ id: 0, backend: networks.backend });
}

async function answer({ id, source }) {
  const picture = await readPixels(source);
  const faces = await networkFaces(picture, networks);
  self.postMessage({ id, picture, faces }, [picture.data.buffer]);
}

let queue = Promise.resolve(); // a session takes one picture at a time

self.onmessage = ({ data }) => {
  const refuse = (error) => self.postMessage({ id: data.id ?? 0, error: error.message });
  if (data.id) queue = queue.then(() => answer(data)).catch(refuse);
  else start(data).catch(refuse);
};
