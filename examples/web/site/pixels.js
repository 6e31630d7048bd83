// The inputs of the networks, equal to those of `ferjax predict` to the last bit: the browser's own
// resampling differs. See ferjax/data/image.py, ferjax/inference/two_stage.py and Pillow.

const GREY = 128; // of the border around a letterboxed picture
const PRECISION = 2 ** 22; // Pillow resizes with integers of 22 fractional bits

/** Interpolation kernels of Pillow, with their support in pixels. */
const BILINEAR = { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };
const BICUBIC = {
  support: 2,
  weight(x) {
    const a = -0.5;
    x = Math.abs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
  },
};

/** For each output pixel along an axis: the first input pixel, and the weights from there on. */
function weightsOf(from, to, kernel) {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // antialiasing: a smaller picture averages more pixels
  const support = kernel.support * stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = new Float64Array(last - first);
    let sum = 0;
    for (let x = 0; x < weights.length; x++) {
      weights[x] = kernel.weight((x + first - centre + 0.5) * (1 / stretch));
      sum += weights[x];
    }
    const whole = weights.map((w) => Math.trunc((w / sum) * PRECISION + (w < 0 ? -0.5 : 0.5)));
    return { first, weights: Int32Array.from(whole) };
  });
}

/** Resizes along one axis: `count` lines, whose pixels are `step` apart. */
function resizeLines(plane, count, line, step, from, to, kernel) {
  const output = new Uint8ClampedArray(count * to);
  const outStep = step === 1 ? 1 : count;
  const outLine = step === 1 ? to : 1;
  weightsOf(from, to, kernel).forEach(({ first, weights }, i) => {
    for (let y = 0; y < count; y++) {
      let sum = PRECISION / 2;
      let at = y * line + first * step;
      for (let k = 0; k < weights.length; k++, at += step) sum += plane[at] * weights[k];
      output[y * outLine + i * outStep] = sum >> 22;
    }
  });
  return output;
}

/** Resizes the bytes of one channel. */
function resize(plane, width, height, newWidth, newHeight, kernel) {
  if (newWidth !== width) plane = resizeLines(plane, height, width, 1, width, newWidth, kernel);
  if (newHeight === height) return plane;
  return resizeLines(plane, newWidth, 1, newWidth, height, newHeight, kernel);
}

/** Rounds halves to the even number, like Python. */
function round(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}

/** One channel as `grey` of RGB planes, with weights that sum to 2 ** bits. */
function grey([red, green, blue], [r, g, b], bits) {
  const half = 2 ** (bits - 1);
  return red.map((x, i) => (x * r + green[i] * g + blue[i] * b + half) >> bits);
}
const OPENCV_GREY = [[9798, 19235, 3735], 15];
const PILLOW_GREY = [[19595, 38470, 7471], 16];

/** The channels of a part of an RGBA picture; pixels outside of it repeat its edge. */
function planesOf(picture, left, top, width, height) {
  const planes = [0, 1, 2].map(() => new Uint8ClampedArray(width * height));
  for (let y = 0, i = 0; y < height; y++) {
    const row = Math.min(Math.max(top + y, 0), picture.height - 1) * picture.width;
    for (let x = 0; x < width; x++, i++) {
      const at = 4 * (row + Math.min(Math.max(left + x, 0), picture.width - 1));
      for (let c = 0; c < 3; c++) planes[c][i] = picture.data[at + c];
    }
  }
  return planes;
}

/** The pixels of planes one after the other. */
function interleaved(planes) {
  const output = new Uint8Array(planes.length * planes[0].length);
  planes.forEach((plane, c) => plane.forEach((x, i) => (output[i * planes.length + c] = x)));
  return output;
}

/** A part of a plane, or a plane inside a larger square with a border. */
function moved(plane, width, height, size, left, top) {
  const output = new Uint8ClampedArray(size * size).fill(GREY);
  for (let y = Math.max(0, -top); y < Math.min(height, size - top); y++) {
    for (let x = Math.max(0, -left); x < Math.min(width, size - left); x++) {
      output[(y + top) * size + x + left] = plane[y * width + x];
    }
  }
  return output;
}

/** The detector's input, and where the picture is in it. */
export function letterbox(picture, { image_size: size, grey: isGrey }) {
  const { width, height } = picture;
  const scale = Math.min(size / width, size / height);
  const newWidth = Math.min(size, Math.max(1, round(width * scale)));
  const newHeight = Math.min(size, Math.max(1, round(height * scale)));
  const left = Math.floor((size - newWidth) / 2);
  const top = Math.floor((size - newHeight) / 2);
  let planes = planesOf(picture, 0, 0, width, height).map((plane) => {
    const resized = resize(plane, width, height, newWidth, newHeight, BICUBIC);
    return moved(resized, newWidth, newHeight, size, left, top);
  });
  if (isGrey) planes = [grey(planes, ...OPENCV_GREY)];
  const placement = [newWidth / width, newHeight / height, left, top, width, height];
  return { pixels: interleaved(planes), placement };
}

/** The classifier's input: the middle of a square around the box with its margins. */
export function faceView(picture, [x1, y1, x2, y2], description) {
  const { image_size: size, grey: isGrey, settings } = description;
  const [left, top, right, bottom] = settings.crop_margin ?? [0.1, 0.1, 0.1, 0.1];
  const [width, height] = [x2 - x1, y2 - y1];
  const longer = Math.max((1 + left + right) * width, (1 + top + bottom) * height);
  const largest = Math.floor(Math.sqrt(64 * picture.width * picture.height));
  const side = Math.min(Math.max(1, Math.floor(longer + 0.5)), largest);
  const column = Math.floor((x1 + x2 + (right - left) * width - side) / 2 + 0.5);
  const row = Math.floor((y1 + y2 + (bottom - top) * height - side) / 2 + 0.5);
  let planes = planesOf(picture, column, row, side, side);
  if (isGrey) planes = [grey(planes, ...PILLOW_GREY)];
  const short = description.resize || size;
  const edge = -Math.floor((short - size) / 2);
  return interleaved(
    planes.map((plane) =>
      moved(resize(plane, side, side, short, short, BILINEAR), short, short, size, edge, edge),
    ),
  );
}
