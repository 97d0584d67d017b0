// Where WebGPU is and how to turn it on, browser by browser.

/**
 * @typedef {object} BrowserHelp
 * @property {string} name
 * @property {RegExp} agent matches the browser's user agent
 * @property {string[]} steps
 */

/** @type {BrowserHelp[]} */
const BROWSERS = [
  {
    name: "Microsoft Edge",
    agent: /Edg\//,
    steps: [
      "Update Edge to version 113 or newer.",
      "In edge://settings/system turn on \u201cUse graphics acceleration when available\u201d and restart.",
      "On Linux, also open edge://flags, enable \u201cUnsafe WebGPU Support\u201d and \u201cVulkan\u201d, and restart.",
    ],
  },
  {
    name: "Firefox",
    agent: /Firefox\//,
    steps: [
      "On Windows use Firefox 141 or newer, on a Mac with Apple silicon 145 or newer.",
      "Elsewhere open about:config, set dom.webgpu.enabled to true and reload this page.",
      "If it still says so, set gfx.webgpu.ignore-blocklist to true as well, or use Chrome or Edge.",
    ],
  },
  {
    name: "Chrome or another Chromium browser",
    agent: /Chrome\/|Chromium\//,
    steps: [
      "Update to version 113 or newer; on Android to 121 or newer.",
      "In chrome://settings/system turn on \u201cUse graphics acceleration when available\u201d and restart.",
      "On Linux, also open chrome://flags, enable \u201cUnsafe WebGPU Support\u201d and \u201cVulkan\u201d, and restart.",
      "chrome://gpu shows whether WebGPU is on and why not.",
    ],
  },
  {
    name: "Safari",
    agent: /Safari\//,
    steps: [
      "Use Safari 26 or newer (macOS 26, iOS 26, iPadOS 26): WebGPU is on there.",
      "In Safari 18, turn on WebGPU under Settings, Feature Flags (on iPhone: Settings, Apps, Safari, Advanced, Feature Flags) and reload.",
    ],
  },
];

/**
 * The visitor's browser first. The order of the list matters: Edge and Chrome both say Safari.
 * @param {string} agent
 * @returns {BrowserHelp[]}
 */
export function browserHelp(agent) {
  const mine = BROWSERS.find((browser) => browser.agent.test(agent)) ?? BROWSERS[2];
  return [mine, ...BROWSERS.filter((browser) => browser !== mine)];
}

/** Why this page has no WebGPU. */
export function missingWebGpu() {
  return isSecureContext
    ? "The browser offers none to this page."
    : "Browsers offer it only to pages served over https or from localhost, and this page is neither.";
}
