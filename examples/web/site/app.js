// The page: controls, drawing and results. The networks run in worker.js.

// The palette of `ferjax predict`: Okabe and Ito (2008).
const COLOURS = "#bbbbbb #f0e442 #0072b2 #e69f00 #cc79a7 #009e73 #d55e00 #56b4e9".split(" ");
const ANNOUNCE_EVERY = 3000; // ms: a screen reader cannot follow every frame

const RATE_OVER = 8; // frames, of the frame rate
// Workers with one thread each: two frames at once take less time than two frames with two threads.
const WORKERS = Math.min(navigator.hardwareConcurrency, 3);

const $ = (id) => document.getElementById(id);
let stream = null; // of the camera, while it runs
let isStarting = false;
let shown = null; // the results on the page
let announced = 0;

/** The networks in a worker; `ready` resolves when they can be used. */
class Networks {
  backend = "";
  #worker = new Worker("worker.js", { type: "module" });
  #waiting = new Map();
  #count = 0;

  /** `onready` is called when they can be used, and when they moved to the GPU. */
  constructor({ gpu = false, onready = () => {} } = {}) {
    this.#worker.postMessage({ gpu });
    this.ready = new Promise((resolve, reject) => {
      this.#worker.onerror = () => reject(new Error("worker.js does not run here"));
      this.#worker.onmessage = ({ data: { id, error, backend, ...result } }) => {
        const waiting = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error) (waiting?.reject ?? reject)(new Error(error));
        else if (waiting) waiting.resolve(result);
        else {
          this.backend = backend;
          resolve();
          onready();
        }
      };
    });
  }

  /** The pixels and the faces of a file or of an `ImageBitmap`, which is then empty. */
  analyse(source) {
    this.#worker.postMessage({ id: ++this.#count, source }, source instanceof Blob ? [] : [source]);
    return new Promise((resolve, reject) => this.#waiting.set(this.#count, { resolve, reject }));
  }
}

function announce(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function fail(text) {
  $("problem").textContent = text;
  announce("");
}

function draw(picture, faces) {
  const canvas = $("picture");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const pen = canvas.getContext("2d");
  pen.putImageData(picture, 0, 0);
  const unit = Math.max(1, picture.width / 640, picture.height / 640); // of a screen's pixels
  pen.lineWidth = 2 * unit;
  pen.font = `${12 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  faces.forEach(({ box: [x1, y1, x2, y2], expression: name, score, scores }, i) => {
    const colour = COLOURS[Object.keys(scores).indexOf(name) % COLOURS.length];
    pen.strokeStyle = colour;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${i + 1} ${name} ${score.toFixed(2)}`;
    const height = 16 * unit;
    const top = Math.max(0, y1 - height);
    pen.fillStyle = colour;
    pen.fillRect(x1 - unit, top, pen.measureText(text).width + 4 * unit, height);
    pen.fillStyle = colour === "#0072b2" ? "white" : "black"; // readable on each colour
    pen.fillText(text, x1 + unit, top + 2 * unit);
  });
}

/** One item of the list; the bars of a camera's frames are updated, not replaced. */
function item(i) {
  if ($("faces").children[i]) return $("faces").children[i];
  const face = document.createElement("li");
  face.append(document.createElement("h3"), document.createElement("ul"));
  $("faces").append(face);
  return face;
}

function list(faces) {
  faces.forEach(({ expression: best, score, scores }, i) => {
    const [heading, bars] = item(i).children;
    heading.textContent = `${best}, ${score.toFixed(2)}`;
    Object.entries(scores).forEach(([name, value], k) => {
      if (!bars.children[k]) {
        const bar = document.createElement("li");
        bar.append(...["span", "meter", "span"].map((tag) => document.createElement(tag)));
        bar.children[1].ariaLabel = name;
        bars.append(bar);
      }
      const [label, meter, number] = bars.children[k].children;
      [label.textContent, meter.value, number.textContent] = [name, value, value.toFixed(2)];
    });
  });
  [...$("faces").children].slice(faces.length).forEach((rest) => rest.remove());
}

function show({ picture, faces }, name, timing) {
  const words = faces.map(({ expression: best }, i) => `${i + 1} ${best}`).join(", ");
  const found = faces.length === 1 ? "1 face" : `${faces.length || "No"} faces`;
  const summary = `${found} found${words && `: ${words}`}.`;
  draw(picture, faces);
  list(faces);
  $("results").hidden = false;
  $("picture").ariaLabel = `${name}. ${summary}`;
  $("timing").textContent = timing;
  $("problem").textContent = "";
  if (!stream || performance.now() - announced > ANNOUNCE_EVERY) {
    announce(summary);
    announced = performance.now();
  }
  shown = { image: name, width: picture.width, height: picture.height, faces };
}

async function showFile(file) {
  if (!file || $("file").disabled) return;
  stopCamera();
  $("problem").textContent = "";
  announce(`Looking for faces in ${file.name} …`);
  const start = performance.now();
  try {
    const result = await networks.analyse(file);
    show(result, file.name, `${(performance.now() - start).toFixed(0)} ms`);
  } catch (error) {
    const reason = `${file.name} cannot be read as a picture (${error.message})`;
    fail(`${reason}. Choose a JPEG, PNG or WebP file.`);
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("camera").ariaPressed = "false";
  $("camera").textContent = "Use the camera";
}

async function startCamera() {
  const video = document.createElement("video");
  isStarting = true;
  try {
    if (!navigator.mediaDevices) throw new Error("browsers allow it to https pages only");
    const size = { width: { ideal: 640 }, height: { ideal: 480 } };
    stream = await navigator.mediaDevices.getUserMedia({ video: { ...size, facingMode: "user" } });
    [video.srcObject, video.muted, video.playsInline] = [stream, true, true];
    await video.play();
  } catch (error) {
    stopCamera();
    const reason = `The camera cannot be used (${error.message})`;
    fail(`${reason}. Connect one, and allow this page to use it.`);
    return;
  } finally {
    isStarting = false;
  }
  $("camera").ariaPressed = "true";
  $("camera").textContent = "Stop the camera";
  showFrames(video, stream);
}

/** Shows the camera's frames until it stops. Workers take turns: each has a frame of its own. */
function showFrames(video, own) {
  let [taken, newest, time] = [0, 0, -1];
  const ends = [];

  async function showEvery(worker) {
    while (stream === own && own.active) {
      if (video.currentTime === time) {
        await new Promise(requestAnimationFrame);
        continue;
      }
      time = video.currentTime;
      const number = ++taken;
      const start = performance.now();
      const result = await worker.analyse(await createImageBitmap(video));
      if (stream !== own) return;
      if (number < newest) continue; // another worker was faster
      newest = number;
      const last = performance.now();
      if (ends.push(last) > RATE_OVER) ends.shift();
      const rate = (1000 * (ends.length - 1)) / (last - ends[0] || 1);
      const milliseconds = (last - start).toFixed(0);
      show(result, "Camera", `${milliseconds} ms for a frame, ${rate.toFixed(1)} frames/s`);
      // Workers that finish together would show two frames at once: one of them pauses a little.
      const pause = (last - start) / 4;
      if (last - ends.at(-2) < pause) await new Promise((resolve) => setTimeout(resolve, pause));
    }
    if (stream === own) stopCamera();
  }

  const run = (worker) =>
    showEvery(worker).catch((error) => {
      if (stream !== own) return;
      stopCamera();
      fail(`The camera's picture cannot be used (${error.message}). Start it again.`);
    });
  run(networks);
  if (networks.backend === "webgpu") return;
  while (helpers.length < WORKERS - 1) {
    const helper = new Networks();
    helper.ready.catch((error) => console.warn(`One worker less: ${error.message}`));
    helpers.push(helper);
  }
  for (const helper of helpers) helper.ready.then(() => run(helper), () => {});
}

function save() {
  const text = JSON.stringify(shown, null, 2);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${shown.image.replace(/\.[^.]*$/, "")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

const helpers = []; // more workers, which the camera starts
const networks = new Networks({
  gpu: true,
  onready() {
    if (!shown) announce(`Ready (${networks.backend === "webgpu" ? "WebGPU" : "WASM"}).`);
    $("file").disabled = $("camera").disabled = false;
  },
});
networks.ready.catch(({ message }) => {
  fail(`The networks cannot be loaded (${message}). See README.md.`);
});

$("file").onchange = ({ target }) => {
  showFile(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
};
$("camera").onclick = () => {
  if (!isStarting) stream ? stopCamera() : startCamera();
};
$("save").onclick = save;
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = () => document.body.classList.remove("dropping");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  showFile(event.dataTransfer.files[0]);
};
