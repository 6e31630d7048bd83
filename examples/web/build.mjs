// Copies the files of onnxruntime-web that the page loads into its own folder.
import { copyFile, mkdir } from "node:fs/promises";

const FILES = [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];
const from = new URL("node_modules/onnxruntime-web/dist/", import.meta.url);
const to = new URL("site/ort/", import.meta.url);
await mkdir(to, { recursive: true });
for (const file of FILES) await copyFile(new URL(file, from), new URL(file, to));
