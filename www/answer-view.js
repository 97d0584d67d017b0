// One answer: markdown with the model's tokens tinted by the tracked feature, and its tools.

import { h, icon, iconButton, number } from "./dom.js";
import { isRefusal } from "./judge.js";
import { placeOf } from "./mapped.js";
import { MarkdownView } from "./markdown-dom.js";
import { openTokens } from "./token-table.js";
import { editWords, gateWords, heldBack, readUnder, settingName, settingsName, usedSettings } from "./setting-words.js";
import { describeToken, heat, keyWalk } from "./token-tip.js";
import { verdict } from "./verdict.js";

/** @import { Answer, Turn } from "./types.d.ts" */
/** @import { Mapped } from "./mapped.js" */

/** @type {Record<import("./types.d.ts").Ending, string>} */
const ENDINGS = {
  finished: "",
  empty: "",
  length: "stopped at the length limit",
  context: "the context is full",
  stopped: "stopped",
  broken: "broken off",
};

/** Shows one lane's answer of a turn. */
export class AnswerView {
  /**
   * @param {Turn} turn
   * @param {number} lane
   * @param {() => number} scale the activation that gets the full tint
   * @param {(feature: number) => void} choose steers another feature
   */
  constructor(turn, lane, scale, choose) {
    this.turn = turn;
    this.lane = lane;
    this.scale = scale;
    /** @type {Answer} */
    this.answer = turn.answers[lane];
    const steered = lane === 1;
    this.name = steered ? "Steered" : "Base";
    this.body = h("div", { className: "answer-body" });
    this.markdown = new MarkdownView(this.body);
    this.verdict = h("button", { type: "button", className: "verdict", "data-term": "refusal", hidden: true });
    this.chip = h("span", { className: "chip" });
    this.gate = h("span", { className: "chip gate", hidden: true, title: "The gate read the prompt before anything was steered" });
    this.meta = h("span", { className: "answer-meta" });
    this.tools = h(
      "div",
      { className: "tools" },
      iconButton("tokens", `Tokens of the ${this.name.toLowerCase()} answer`, () => openTokens(turn, lane, choose)),
      iconButton("copy", `Copy the ${this.name.toLowerCase()} answer`, () => this.copy()),
    );
    this.node = h(
      "section",
      { className: `answer ${steered ? "steered" : "base"}`, "aria-label": `${this.name} answer` },
      h(
        "header",
        {},
        h("span", { className: "lane-name" }, this.name),
        steered ? this.chip : null,
        steered ? this.gate : null,
        this.verdict,
      ),
      this.body,
      h("footer", {}, this.meta, this.tools),
    );
    keyWalk(this.body);
    this.update();
  }

  update() {
    const { answer, turn } = this;
    const running = turn.state === "running" && answer.end === null;
    this.body.setAttribute("aria-busy", String(running));
    this.node.classList.toggle("running", running);
    this.tools.hidden = turn.state === "running" || !answer.text;
    if (answer.text) {
      this.markdown.update(answer.text, (from) => this.leaf(from), !running);
    } else {
      const waiting = h("span", { className: "waiting", role: "img", "aria-label": "Waiting for the first token" });
      this.body.replaceChildren(running ? waiting : h("p", { className: "nothing" }, verdict("", answer.end ?? "broken", null)?.why ?? ""));
    }
    this.chip.textContent = settingsName(turn);
    this.chip.title = usedSettings(turn).map(settingName).join(", then ");
    this.chip.classList.toggle("on", usedSettings(turn).some((setting) => setting.on) && !heldBack(turn));
    this.gate.hidden = answer.gate === undefined;
    if (answer.gate) {
      this.gate.textContent = gateWords(answer.gate);
      this.gate.classList.toggle("on", answer.gate.steered);
    }
    if (!running) {
      const first = this.body.querySelector(".token");
      if (first instanceof HTMLElement) first.tabIndex = 0;
      this.judge();
    }
    const ending = answer.end ? ENDINGS[answer.end] : "";
    const count = answer.tokens.length;
    this.meta.textContent = count ? `${number(count)} token${count === 1 ? "" : "s"}${ending ? `, ${ending}` : ""}` : "";
  }

  /** Says what the answer is. */
  judge() {
    const { text, end } = this.answer;
    const found = verdict(text, end ?? "broken", isRefusal(text));
    this.verdict.hidden = found === null;
    this.verdict.textContent = found?.label ?? "";
    this.verdict.title = found?.why ?? "";
    this.verdict.classList.toggle("declined", found?.label === "Declined");
  }

  /**
   * What the card of a token says of it.
   * @param {number} index of the token
   * @returns {string[]}
   */
  notes(index) {
    const { turn, lane } = this;
    const token = this.answer.tokens[index];
    const feature = turn.tracked?.feature ?? 0;
    if (lane === 0) return turn.settings[0].on ? [editWords(null, "generated", false, 0, feature)] : [];
    const under = readUnder(turn, index);
    const edit = under ? [editWords(under, "generated", false, token.activation ?? 0, feature)] : [];
    const several = usedSettings(turn).length > 1;
    return several ? [...edit, `written under ${settingName(turn.settings[token.setting ?? 0])}`] : edit;
  }

  /**
   * A leaf for the markdown renderer that wraps each token's visible characters in a span.
   * @param {number} start the first character of the answer that it is given
   * @returns {(run: Mapped) => Node[]}
   */
  leaf(start) {
    const { tokens } = this.answer;
    const { tracked, settings } = this.turn;
    const scale = this.scale();
    /** @type {number[]} token of each character */
    const owner = [];
    tokens.forEach((token, index) => {
      for (let i = 0; i < token.text.length; i++) owner.push(index);
    });
    /** The setting of the token drawn last. */
    let under = this.lane === 1 ? (tokens[owner[start - 1]]?.setting ?? 0) : null;
    return (run) => {
      /** @type {Node[]} */
      const nodes = [];
      for (let from = 0; from < run.text.length; ) {
        const index = owner[placeOf(run, from)];
        let to = from + 1;
        while (to < run.text.length && owner[placeOf(run, to)] === index) to++;
        const text = run.text.slice(from, to);
        const token = tokens[index];
        if (under !== null && token && (token.setting ?? 0) !== under) {
          under = token.setting ?? 0;
          nodes.push(h("span", { className: "setting-mark", title: `From here on: ${settingName(settings[under])}` }, settings[under].label));
        }
        if (token?.activation === undefined) {
          nodes.push(document.createTextNode(text));
        } else {
          const span = h("span", { className: "token", tabIndex: -1 }, text);
          span.style.setProperty("--heat", heat(token.activation, scale));
          describeToken(span, { token, feature: tracked?.feature ?? 0, notes: this.notes(index), place: { turn: this.turn, lane: this.lane, part: "answer", index } });
          nodes.push(span);
        }
        from = to;
      }
      return nodes;
    };
  }

  async copy() {
    const button = /** @type {HTMLButtonElement} */ (this.tools.lastElementChild);
    try {
      await navigator.clipboard.writeText(this.answer.text);
      button.replaceChildren(icon("check"));
    } catch {
      button.title = "The browser did not allow copying";
      button.replaceChildren(icon("close"));
    }
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  }
}
