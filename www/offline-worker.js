// The service worker: keeps one build of the page with the nano model, whole or not at all, and
// serves the page from it. The build (scripts/precache.sh) puts BUILD, FILES and ASIDE in front of this.
//
// On the first visit the worker stands between the page and the network and keeps what the page
// fetches, so that nothing is fetched twice; when the page runs, it asks for the rest ("keep"). Until
// all is there, what comes from the network is handed on as it is.
//
// A new build is fetched beside the old one, each file checked by its hash, and takes over when no
// page of the old one is open (or when the only one asks for it), so that no page ever sees files of
// two builds. What is served from the cache is checked by its hash each time. Downloads of models pass
// by untouched.

const worker = /** @type {any} */ (self);
const PREFIX = "phi3-steer ";
const CACHE = PREFIX + BUILD;
/** By path: SHA-256 and length. */
const files = new Map(FILES.map(([path, hash, bytes]) => [path, { hash, bytes }]));
const HASH_HEADER = "X-Content-Sha256";
/** Files fetched at the same time. */
const AT_ONCE = 6;

/** @param {string} path */
const at = (path) => new URL(path, worker.registration.scope).href;

/** In the cache once all files are. */
const MARK = "kept-whole";

/** Set when the server has another build: everything then comes from the network. */
let left = false;

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function hashOf(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Keeps a file, if it is of this build.
 * @param {string} path
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {string} type
 * @returns {Promise<boolean>}
 */
async function keep(path, bytes, type) {
  const hash = await hashOf(bytes);
  if (hash !== files.get(path)?.hash || left) return false;
  await (await caches.open(CACHE)).put(at(path), new Response(bytes, { headers: { "Content-Type": type, [HASH_HEADER]: hash } }));
  return true;
}

/** @param {Response} response */
const typeOf = (response) => response.headers.get("Content-Type") ?? "application/octet-stream";

/**
 * Fetches and keeps the file, as this build has it. What the browser still holds of it will do.
 * @param {string} path
 */
async function bring(path) {
  // The browser has the page itself under the address of its folder.
  const held = path === "index.html" ? worker.registration.scope : at(path);
  for (const [address, cache] of /** @type {[string, RequestCache][]} */ ([[held, "force-cache"], [at(path), "no-cache"]])) {
    const response = await fetch(address, { cache });
    if (!response.ok) continue;
    if (await keep(path, new Uint8Array(await response.arrayBuffer()), typeOf(response))) return;
  }
  throw new Error(`${path} is not there as this build has it`);
}

/**
 * The file out of a cache, checked by its hash; a damaged one is deleted.
 * @param {string} path
 * @param {string} [name] of the cache
 * @returns {Promise<{bytes: Uint8Array<ArrayBuffer>, type: string} | null>}
 */
async function kept(path, name = CACHE) {
  const cache = await caches.open(name);
  const found = await cache.match(at(path));
  if (!found) return null;
  const bytes = new Uint8Array(await found.arrayBuffer());
  if ((await hashOf(bytes)) === files.get(path)?.hash) return { bytes, type: typeOf(found) };
  if (name === CACHE) await cache.delete(at(path));
  return null;
}

/** Brings what is missing: out of an older build's cache where it is the same, or over the network. */
async function fill() {
  const older = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  const paths = [...files.keys()];
  const lane = async () => {
    for (let path = paths.shift(); path !== undefined; path = paths.shift()) {
      await flows.get(path)?.done;
      if (await kept(path)) continue;
      let same = null;
      for (const name of older) same ??= await kept(path, name);
      if (same) await keep(path, same.bytes, same.type);
      else await bring(path);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  await (await caches.open(CACHE)).put(at(MARK), new Response(""));
}

async function isWhole() {
  return (await (await caches.open(CACHE)).match(at(MARK))) !== undefined;
}

/** Gives this build up: the server has another, which the next page comes from. */
async function leave() {
  left = true;
  await worker.registration.unregister();
  await caches.delete(CACHE);
}

/** Whether the server still has this build. */
async function isCurrent() {
  try {
    const response = await fetch(worker.location.href, { cache: "no-cache" });
    return !response.ok || (await response.text()).startsWith(`const BUILD = "${BUILD}"`);
  } catch {
    // Without a network there is no other.
    return true;
  }
}

/**
 * @param {any} event of a request for a file of this build
 * @param {string} path
 * @returns {Promise<Response>}
 */
async function answer(event, path) {
  /** @type {Request} */
  const request = event.request;
  if (left) return fetch(request);
  const range = request.headers.get("Range");
  const whole = await isWhole();
  // A page that begins while only a part is kept must not get files of two builds.
  if (!whole && request.mode === "navigate" && !(await isCurrent())) {
    await leave();
    return fetch(request);
  }
  let found = await kept(path);
  if (!found && !whole) return flowing(event, path, range);
  if (!found) {
    // It was lost or damaged on the disk.
    try {
      await bring(path);
      found = await kept(path);
    } catch (error) {
      if (error instanceof TypeError) return Response.error();
    }
  }
  if (found) return range ? part(found, range) : new Response(found.bytes, { headers: { "Content-Type": found.type, [HASH_HEADER]: files.get(path)?.hash ?? "" } });
  await leave();
  if (request.mode === "navigate") return fetch(request);
  for (const page of await worker.clients.matchAll({ type: "window" })) page.navigate(page.url).catch(() => {});
  return Response.error();
}

/**
 * The range that was asked for, from its first byte to before its last.
 * @param {string} range
 * @param {number} size
 * @returns {[number, number] | null} null where it is no single range
 */
function bounds(range, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(range.trim());
  if (!match || (!match[1] && !match[2])) return null;
  const start = match[1] ? Number(match[1]) : Math.max(0, size - Number(match[2]));
  return [start, match[1] && match[2] ? Math.min(size, Number(match[2]) + 1) : size];
}

/**
 * The head of an answer that holds a range.
 * @param {[number, number]} bounds
 * @param {number} size
 * @param {string} type
 * @returns {ResponseInit}
 */
function partHead([start, end], size, type) {
  if (start >= end) return { status: 416, headers: { "Content-Range": `bytes */${size}` } };
  return { status: 206, headers: { "Content-Type": type, "Content-Length": String(end - start), "Content-Range": `bytes ${start}-${end - 1}/${size}`, "Accept-Ranges": "bytes" } };
}

/**
 * @param {{bytes: Uint8Array<ArrayBuffer>, type: string}} file
 * @param {string} range
 */
function part({ bytes, type }, range) {
  const within = bounds(range, bytes.length);
  if (!within) return new Response(bytes, { headers: { "Content-Type": type } });
  const head = partHead(within, bytes.length, type);
  return new Response(head.status === 416 ? null : bytes.subarray(...within), head);
}

/** Files on their way from the network. @type {Map<string, Flow>} */
const flows = new Map();
/** Files that the server has otherwise than this build. @type {Set<string>} */
const foreign = new Set();

/**
 * The file as it comes from the network, fetched once however many ask for it and in whatever parts.
 * @param {any} event
 * @param {string} path
 * @param {string | null} range
 * @returns {Promise<Response>}
 */
async function flowing(event, path, range) {
  if (foreign.has(path)) return fetch(event.request);
  let flow = flows.get(path);
  if (!flow) {
    flow = new Flow(path);
    flows.set(path, flow);
    event.waitUntil(flow.done);
  }
  const { response } = flow;
  const head = await response;
  const type = typeOf(head);
  // What is not the file as it should be is handed on as it is.
  if (!head.ok || flow.alien) return fetch(event.request);
  const within = range ? bounds(range, flow.size) : null;
  if (!within) return new Response(flow.stream(0, flow.size), { headers: { "Content-Type": type } });
  const init = partHead(within, flow.size, type);
  return new Response(init.status === 416 ? null : flow.stream(...within), init);
}

/** One file on its way from the network into the cache, and to all who ask for it meanwhile. */
class Flow {
  /** @param {string} path */
  constructor(path) {
    this.path = path;
    this.size = files.get(path)?.bytes ?? 0;
    this.bytes = new Uint8Array(this.size);
    this.received = 0;
    /** Whether the server's file has another length than that of this build. */
    this.alien = false;
    this.failed = /** @type {unknown} */ (null);
    /** Those who wait for more. @type {(() => void)[]} */
    this.waiting = [];
    this.response = fetch(at(path));
    /** Settles when it is kept, or is not going to be. */
    this.done = this.take().catch((error) => {
      this.failed = error ?? new Error("broken off");
    }).then(() => {
      flows.delete(path);
      this.wake();
    });
  }

  wake() {
    for (const go of this.waiting.splice(0)) go();
  }

  async take() {
    const response = await this.response;
    if (!response.ok || !response.body) {
      this.alien = true;
      return;
    }
    const length = response.headers.get("Content-Encoding") ? null : response.headers.get("Content-Length");
    this.alien = length !== null && Number(length) !== this.size;
    if (this.alien) {
      foreign.add(this.path);
      await response.body.cancel();
      return;
    }
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (this.received + value.length > this.size) {
        foreign.add(this.path);
        throw new Error(`${this.path} is longer than in this build`);
      }
      this.bytes.set(value, this.received);
      this.received += value.length;
      this.wake();
    }
    if (this.received < this.size) foreign.add(this.path);
    if (this.received < this.size) throw new Error(`${this.path} is shorter than in this build`);
    if (!(await keep(this.path, this.bytes, typeOf(response)))) foreign.add(this.path);
  }

  /**
   * The bytes from `start` to `end`, as they come.
   * @param {number} start
   * @param {number} end
   * @returns {ReadableStream<Uint8Array>}
   */
  stream(start, end) {
    let next = start;
    return new ReadableStream(
      {
        pull: async (controller) => {
          while (this.received <= next && next < end && !this.failed) await new Promise((resolve) => this.waiting.push(() => resolve(null)));
          const until = Math.min(end, this.received);
          if (until > next) {
            controller.enqueue(this.bytes.slice(next, until));
            next = until;
          }
          if (next >= end) controller.close();
          else if (this.failed) controller.error(this.failed);
        },
      },
      { highWaterMark: 0 },
    );
  }
}

worker.addEventListener("install", (/** @type {any} */ event) => {
  // Beside an older build it is filled before it counts; without one the page itself brings the files.
  event.waitUntil(worker.registration.active ? fill() : Promise.resolve());
});

worker.addEventListener("activate", (/** @type {any} */ event) => {
  const begin = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
    }
    await worker.clients.claim();
  };
  event.waitUntil(begin());
});

worker.addEventListener("fetch", (/** @type {any} */ event) => {
  /** @type {Request} */
  const request = event.request;
  // The download manager asks past every cache.
  if (left || request.method !== "GET" || request.cache === "no-store" || !request.url.startsWith(worker.registration.scope)) return;
  const address = new URL(request.url).pathname.slice(new URL(worker.registration.scope).pathname.length);
  let path = address;
  try {
    path = decodeURI(address) || "index.html";
  } catch {
    // A percent sign that stands for nothing: no file of the page has one.
  }
  if (files.has(path)) event.respondWith(answer(event, path));
  // All of the nano model is known: what is not, is nowhere.
  else if (path.startsWith("models/nano/") && !ASIDE.includes(path)) event.respondWith(new Response(null, { status: 404 }));
});

worker.addEventListener("message", (/** @type {any} */ event) => {
  if (event.data === "keep") {
    const filled = async () => {
      if (left) return false;
      if (await isWhole()) return true;
      await fill();
      return true;
    };
    event.waitUntil(
      filled().then(
        (whole) => event.ports[0]?.postMessage({ whole, left }),
        async (error) => {
          // Half a build on the server, or one that it serves otherwise: the page goes on without a cache.
          event.ports[0]?.postMessage({ whole: false, why: String(error?.message ?? error) });
        },
      ),
    );
  }
  if (event.data !== "take over") return;
  event.waitUntil(
    worker.clients.matchAll({ type: "window", includeUncontrolled: true }).then((/** @type {unknown[]} */ pages) => {
      if (pages.length > 1) event.ports[0]?.postMessage("other pages are open");
      else worker.skipWaiting();
    }),
  );
});
