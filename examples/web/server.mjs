// A static server for `site/` on the loopback interface: node server.mjs [PORT]
//
// Its policy forbids every request to another origin, also to workers.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const SITE = fileURLToPath(new URL("site/", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".wasm": "application/wasm",
  ".onnx": "application/octet-stream",
};
const HEADERS = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; " +
    "connect-src 'self'; img-src data:; style-src 'self'; base-uri 'none'; form-action 'none'; " +
    "frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-cache",
};

/** The file of the site that an address names, or "" for an address that cannot be read. */
function fileOf(address) {
  try {
    const path = decodeURIComponent(new URL(address, "http://localhost").pathname);
    // Joining "/" and the path first removes "..", so no file outside of the site is sent.
    return join(SITE, join("/", path === "/" ? "index.html" : path));
  } catch {
    return "";
  }
}

/** Starts the server; port 0 takes a free one. Returns it when it listens. */
export async function serve(port = 0) {
  const server = createServer(async (request, response) => {
    const file = fileOf(request.url);
    const found = await stat(file).catch(() => null);
    if (!found?.isFile() || !["GET", "HEAD"].includes(request.method)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Content-Length": found.size,
      ...HEADERS,
    });
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  return server;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const server = await serve(Number(process.argv[2]) || 8080);
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
