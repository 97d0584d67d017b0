// What this machine may hold and how fast it may be, guessed from what a browser tells: never more than a guess.

import { bytes, number } from "./dom.js";

/**
 * @typedef {object} Machine
 * @property {number | null} memory bytes of the whole machine, as far as the browser tells
 * @property {boolean} software whether graphics are computed in software
 * @property {number | null} traffic bytes a second that the adapter moved when it was tried
 * @property {number | null} room bytes that this site may still store
 */

/** GPUBufferUsage.COPY_SRC and COPY_DST. */
const COPIED = 0x4 | 0x8;

/** Bytes of the buffers that are copied. */
const SIZE = 32 * 2 ** 20;

/** Copies that are timed. */
const COPIES = 8;

/** Above this share of the machine's memory nothing else has room. */
const MOST = 0.6;

/**
 * Asks the browser; what it does not say is null.
 * @returns {Promise<Machine>}
 */
export async function lookAt() {
  const { gpu, storage } = navigator;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  const memory = /** @type {any} */ (navigator).deviceMemory;
  const { usage = 0, quota = null } = (await storage?.estimate?.().catch(() => null)) ?? {};
  const software = adapter?.info?.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|software|basic render/i.test(`${adapter?.info?.architecture} ${adapter?.info?.description}`);
  return {
    memory: Number.isFinite(memory) ? memory * 2 ** 30 : null,
    software,
    // In software it is not memory that takes the time.
    traffic: adapter && !software ? await traffic(adapter).catch(() => null) : null,
    room: quota === null ? null : Math.max(0, quota - usage),
  };
}

/**
 * Bytes a second that go from and to an adapter's memory when it copies.
 * @param {GPUAdapter} adapter
 * @returns {Promise<number>}
 */
export async function traffic(adapter) {
  const device = await adapter.requestDevice();
  try {
    const [from, to] = [1, 2].map(() => device.createBuffer({ size: SIZE, usage: COPIED }));
    const copy = async (/** @type {number} */ times) => {
      const since = performance.now();
      const encoder = device.createCommandEncoder();
      for (let i = 0; i < times; i++) encoder.copyBufferToBuffer(i % 2 ? to : from, 0, i % 2 ? from : to, 0, SIZE);
      device.queue.submit([encoder.finish()]);
      const gone = device.lost.then(() => Promise.reject(new Error("the device was lost")));
      await Promise.race([device.queue.onSubmittedWorkDone(), gone]);
      return performance.now() - since;
    };
    // The first is slow for reasons of its own, and what a submission takes by itself is in both of the others.
    await copy(1);
    const [one, all] = [await copy(1), await copy(COPIES + 1)];
    const seconds = Math.max(all - one, all / 2) / 1000;
    return (2 * COPIES * SIZE) / seconds;
  } finally {
    device.destroy();
  }
}

/**
 * What can be said of a model on this machine.
 * @param {{memory: number, download: number}} need bytes on the GPU, and bytes that are still to be stored
 * @param {Machine} machine
 * @returns {{tight: boolean, words: string}}
 */
export function guess(need, machine) {
  const { memory, software, traffic: moved, room } = machine;
  const takes = `Takes about ${rough(need.memory)} of graphics memory`;
  if (room !== null && need.download > room) return { tight: true, words: `${takes}. The browser grants this site ${rough(room)} more on this disk: there is no room to keep it.` };
  if (memory !== null && need.memory > MOST * memory) return { tight: true, words: `${takes}: likely more than this machine has to give (the browser tells of ${rough(memory)} in all).` };
  if (software || moved === null) return { tight: false, words: `${takes}.` };
  return { tight: false, words: `${takes}; at most about ${rounded(moved / need.memory)} tokens a second here.` };
}

/**
 * What can be said of the machine, whatever the model.
 * @param {Machine | null} machine
 * @returns {string}
 */
export function machineWords(machine) {
  if (!machine) return "";
  if (machine.software) return "This browser computes graphics in software: the smallest of them is slow here, and the others are hardly usable.";
  return machine.traffic === null ? "The browser does not tell how much graphics memory there is, nor how fast it is." : "Speeds are guessed from how fast this GPU copies its memory; nothing was measured with these models.";
}

/** Bytes with two digits: an estimate has no more. */
const rough = (/** @type {number} */ value) => bytes(Number(value.toPrecision(2))).replace(/\.0+ /, " ");

/** A speed with one digit or two. */
const rounded = (/** @type {number} */ value) => number(value < 1 ? Number(value.toFixed(1)) : Number(value.toPrecision(value < 100 ? 1 : 2)));
