// What is said of errors: something of every code, and the right thing of a network that is not there.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { adviceOn, errorPanel } from "../../www/errors.js";
import { toldCode } from "../../www/store/errors.js";

/** The codes that the engine gives its errors. */
function engineCodes() {
  const folder = new URL("../../src/web/", import.meta.url);
  const found = readdirSync(folder)
    .filter((name) => name.endsWith(".rs"))
    .flatMap((name) => {
      const made = name === "error.rs" ? /(?:=> (?:\{\s*)?|WebError::new\(\s*)"([a-z]+(?:-[a-z]+)*)"/g : /WebError::new\(\s*"([a-z]+(?:-[a-z]+)*)"/g;
      return [...readFileSync(new URL(name, folder), "utf8").matchAll(made)].map(([, code]) => code);
    });
  return [...new Set(found)];
}

test("every code of the engine has a title and something to do", () => {
  const codes = engineCodes();
  for (const known of ["no-adapter", "device-lost", "bad-hook", "busy", "network"]) assert.ok(codes.includes(known), known);
  const unknown = adviceOn({ code: "no such code" }).title;
  for (const code of codes.filter((one) => one !== "no-webgpu")) {
    const { title, steps } = adviceOn({ code });
    assert.notEqual(title, unknown, `nothing is said of "${code}"`);
    assert.ok(steps.length, code);
  }
});

test("different faults of a dictionary have different titles", () => {
  const titles = ["bad-hook", "no-hook", "bad-dictionary", "wrong-dictionary", "bad-steering"].map((code) => adviceOn({ code }).title);
  assert.equal(new Set(titles).size, titles.length);
  for (const title of titles.slice(0, 3)) assert.doesNotMatch(title, /not of this model/);
});

test("nothing broke off that had not begun", () => {
  const title = (code, online) => adviceOn({ code: toldCode(code, online) }).title;
  assert.match(title("network", true), /broke off/);
  assert.match(title("network", false), /broke off/);
  assert.doesNotMatch(title("unreachable", true), /broke off/);
  assert.match(title("unreachable", false), /no network/);
});

/** As much of a document as a panel needs. */
class Node {
  constructor() {
    this.textContent = "";
    this.inside = [];
  }
  setAttribute() {}
  addEventListener() {}
  append(...children) {
    this.inside.push(...children);
  }
  get text() {
    return [this.textContent, ...this.inside.map((child) => (typeof child === "string" ? child : child.text))].join(" ");
  }
}

test("a driver's own words are not shown to those who have no graphics card", () => {
  globalThis.document = { createElement: () => new Node() };
  globalThis.navigator ??= /** @type {any} */ ({ onLine: true });
  const raw = "no GPU adapter is available (noop support not compiled in, webgpu: no adapter)";
  const said = errorPanel({ code: "no-adapter", message: raw }, []).text;
  assert.ok(!said.includes("noop") && said.includes("graphics"), said);
  assert.ok(errorPanel({ code: "bad-config", message: "layers: 3" }, []).text.includes("layers: 3"));
});
