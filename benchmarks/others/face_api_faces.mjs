// The package @vladmandic/face-api in Node, with tfjs' WASM backend: FOLDER ssd|tiny. The folder
// has node_modules with it, @tensorflow/tfjs, @tensorflow/tfjs-backend-wasm and sharp.
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";

const [folder, kind] = process.argv.slice(2);
const require = createRequire(join(resolve(folder), "package.json"));
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");
const sharp = require("sharp");
const models = join(resolve(folder), "node_modules/@vladmandic/face-api/model");
const faceapi = require("@vladmandic/face-api/dist/face-api.node-wasm.js");

wasm.setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json"))}/dist/`);
await tf.setBackend("wasm");
await tf.ready();
const [net, options] =
  kind === "tiny"
    ? [faceapi.nets.tinyFaceDetector, new faceapi.TinyFaceDetectorOptions()]
    : [faceapi.nets.ssdMobilenetv1, new faceapi.SsdMobilenetv1Options()];
await net.loadFromDisk(models);
await faceapi.nets.faceExpressionNet.loadFromDisk(models);

for await (const path of createInterface({ input: process.stdin })) {
  const start = performance.now();
  const { data, info } = await sharp(path).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const image = tf.tensor3d(data, [info.height, info.width, 3], "int32");
  const found = await faceapi.detectAllFaces(image, options).withFaceExpressions();
  const ms = performance.now() - start;
  image.dispose();
  const faces = found.map(({ detection, expressions }) => {
    const { x, y, width, height } = detection.box;
    const { happy, ...others } = { ...expressions };
    return { box: [x, y, x + width, y + height], scores: { ...others, happiness: happy } };
  });
  console.log("@", JSON.stringify({ ms, faces }));
}
