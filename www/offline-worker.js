// The service worker: keeps one build of the page with the nano model, whole or not at all, and
// serves the page from it. The build (scripts/precache.sh) puts BUILD and FILES in front of this.
//
// A new build is fetched beside the old one, each file checked by its hash, and takes over when no
// page of the old one is open (or when the only one asks for it), so that no page ever sees files of
// two builds. Downloads of models pass by untouched.

const worker = /** @type {any} */ (self);
const PREFIX = "phi3-steer ";
const CACHE = PREFIX + BUILD;
const hashes = new Map(FILES);
const HASH_HEADER = "X-Content-Sha256";
/** Files fetched at the same time. */
const AT_ONCE = 6;

/** @param {string} path */
const at = (path) => new URL(path, worker.registration.scope).href;

/**
 * The file over the network, as this build has it.
 * @param {string} path
 * @returns {Promise<Response>}
 */
async function fetched(path) {
  const response = await fetch(at(path), { cache: "no-cache" });
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  const bytes = await response.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hash !== hashes.get(path)) throw new Error(`${path} is of another build`);
  const type = response.headers.get("Content-Type") ?? "application/octet-stream";
  return new Response(bytes, { headers: { "Content-Type": type, [HASH_HEADER]: hash } });
}

/**
 * The file out of an older build's cache, where it is the same.
 * @param {string} path
 * @returns {Promise<Response | undefined>}
 */
async function kept(path) {
  for (const name of await caches.keys()) {
    const found = name.startsWith(PREFIX) ? await (await caches.open(name)).match(at(path)) : undefined;
    if (found?.headers.get(HASH_HEADER) === hashes.get(path)) return found;
  }
  return undefined;
}

async function install() {
  const cache = await caches.open(CACHE);
  const paths = [...hashes.keys()];
  const lane = async () => {
    for (let path = paths.shift(); path !== undefined; path = paths.shift()) {
      await cache.put(at(path), (await kept(path)) ?? (await fetched(path)));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  }
}

/**
 * @param {Request} request
 * @param {string} path
 * @returns {Promise<Response>}
 */
async function answer(request, path) {
  const found = await (await caches.open(CACHE)).match(at(path));
  const range = request.headers.get("Range");
  if (found) return range ? part(found, range) : found;
  try {
    return await fetched(path);
  } catch (error) {
    // The cache was emptied and this build is gone: the next visit begins anew.
    await worker.registration.unregister();
    return Response.error();
  }
}

/**
 * The range of an answer that was asked for.
 * @param {Response} response
 * @param {string} range
 * @returns {Promise<Response>}
 */
async function part(response, range) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(range.trim());
  if (!match || (!match[1] && !match[2])) return response;
  const blob = await response.blob();
  const start = match[1] ? Number(match[1]) : Math.max(0, blob.size - Number(match[2]));
  const end = match[1] && match[2] ? Math.min(blob.size, Number(match[2]) + 1) : blob.size;
  const type = response.headers.get("Content-Type") ?? "application/octet-stream";
  if (start >= end) return new Response(null, { status: 416, headers: { "Content-Range": `bytes */${blob.size}` } });
  return new Response(blob.slice(start, end), {
    status: 206,
    headers: { "Content-Type": type, "Content-Length": String(end - start), "Content-Range": `bytes ${start}-${end - 1}/${blob.size}`, "Accept-Ranges": "bytes" },
  });
}

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(install()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(activate()));

worker.addEventListener("fetch", (/** @type {any} */ event) => {
  /** @type {Request} */
  const request = event.request;
  // The download manager asks past every cache.
  if (request.method !== "GET" || request.cache === "no-store" || !request.url.startsWith(worker.registration.scope)) return;
  const path = decodeURI(new URL(request.url).pathname.slice(new URL(worker.registration.scope).pathname.length)) || "index.html";
  if (hashes.has(path)) event.respondWith(answer(request, path));
  // All of the nano model is here: what is not, is nowhere.
  else if (path.startsWith("models/nano/")) event.respondWith(new Response(null, { status: 404 }));
});

worker.addEventListener("message", (/** @type {any} */ event) => {
  if (event.data !== "take over") return;
  event.waitUntil(
    worker.clients.matchAll({ type: "window", includeUncontrolled: true }).then((/** @type {unknown[]} */ pages) => {
      if (pages.length > 1) event.ports[0]?.postMessage("other pages are open");
      else worker.skipWaiting();
    }),
  );
});
