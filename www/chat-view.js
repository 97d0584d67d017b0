// The conversation on the page: one row a turn, the prompt above and the two answers side by side.

import { AnswerView } from "./answer-view.js";
import { byId, h, iconButton, number } from "./dom.js";
import { errorPanel, isFatal } from "./errors.js";
import { heardPrompt } from "./heard-prompt.js";
import { keyWalk } from "./token-tip.js";

/** @import { Conversation } from "./conversation.js" */
/** @import { Turn } from "./types.d.ts" */

/**
 * @typedef {object} ChatActions
 * @property {(turn: Turn, prompt: string) => void} resend replaces the turn and all after it
 * @property {(feature: number) => void} choose steers another feature
 * @property {() => boolean} canRun whether there is an engine to send to
 * @property {(prompt: string) => void} compare answers a prompt at several strengths
 */

/** Keeps the list of turns in step with the conversation. */
export class ChatView {
  /**
   * @param {Conversation} conversation
   * @param {HTMLElement} list
   * @param {HTMLElement} scroller
   * @param {HTMLElement} announcer a polite live region
   * @param {ChatActions} actions
   */
  constructor(conversation, list, scroller, announcer, actions) {
    this.conversation = conversation;
    this.list = list;
    this.scroller = scroller;
    this.announcer = announcer;
    this.actions = actions;
    /** @type {Map<Turn, TurnView>} */
    this.views = new Map();
    this.frame = 0;
    /** What the full tint stands for. */
    this.legend = byId("heat-full", HTMLElement);
    /** No drawing before this time. */
    this.rest = 0;
    conversation.addEventListener("add", (event) => this.add(detail(event)));
    conversation.addEventListener("stream", (event) => this.schedule(detail(event)));
    conversation.addEventListener("end", (event) => this.end(detail(event)));
    conversation.addEventListener("truncate", () => this.prune());
    conversation.addEventListener("restore", () => {
      for (const turn of conversation.turns) {
        this.add(turn);
        this.draw(turn);
      }
    });
  }

  /** @param {Turn} turn */
  add(turn) {
    const view = new TurnView(turn, this.conversation.turns.indexOf(turn) + 1, () => this.scale(turn), this.actions);
    this.views.set(turn, view);
    this.list.append(view.node);
    this.markLast();
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /**
   * Redraws at most once a frame, however many tokens came, and less often when drawing is slow:
   * at most a fifth of the time goes into it.
   * @param {Turn} turn
   */
  schedule(turn) {
    if (this.frame) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = 0;
      if (turn.state !== "running") return;
      if (now < this.rest) {
        this.schedule(turn);
        return;
      }
      this.draw(turn);
      this.rest = now + 5 * (performance.now() - now);
    });
  }

  /** @param {Turn} turn */
  draw(turn) {
    const { scroller } = this;
    const following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    this.views.get(turn)?.update();
    if (turn.tracked) this.legend.textContent = `strong: ${number(this.scale(turn))} and more`;
    if (following) scroller.scrollTop = scroller.scrollHeight;
  }

  /** @param {Turn} turn */
  end(turn) {
    this.draw(turn);
    this.markLast();
    const [base, steered] = turn.answers.map((answer) => answer.text.trim() || "nothing");
    this.announcer.textContent =
      turn.state === "failed"
        ? `The turn failed. ${turn.error?.message ?? ""}`
        : base === steered
          ? `Base and steered both answered: ${base}`
          : `Base answered: ${base} Steered answered: ${steered}`;
  }

  prune() {
    for (const [turn, view] of this.views) {
      if (this.conversation.turns.includes(turn)) continue;
      view.node.remove();
      this.views.delete(turn);
    }
    if (this.views.size === 0) this.legend.textContent = "strong";
    this.markLast();
  }

  /** The engine came or went: "Run again" needs one. */
  refresh() {
    this.list.classList.toggle("idle", this.actions.canRun());
  }

  markLast() {
    const last = this.conversation.turns.at(-1);
    for (const [turn, view] of this.views) view.node.classList.toggle("last", turn === last);
  }

  /**
   * The largest activation of the turn's feature in the conversation, so that its tints compare.
   * @param {Turn} one
   */
  scale(one) {
    const { report } = this.conversation.settings;
    const tracks = (/** @type {Turn} */ turn) => turn.tracked?.feature === one.tracked?.feature && turn.tracked?.hook === one.tracked?.hook;
    // A floor, so that faint activations look faint: a clamp is chosen well above what occurs.
    let most = (report && report.feature === one.tracked?.feature ? report.value.default : 4) / 4;
    for (const turn of this.conversation.turns.filter(tracks)) {
      for (const { prompt, tokens } of turn.answers) {
        for (const token of [...prompt, ...tokens]) most = Math.max(most, token.activation ?? 0);
      }
    }
    return most;
  }
}

/**
 * @param {Event} event
 * @returns {Turn}
 */
const detail = (event) => /** @type {CustomEvent<Turn>} */ (event).detail;

/** A message of more lines or characters is folded. */
const LINES = 14;
const CHARACTERS = 1200;

/** @param {string} text */
const isLong = (text) => text.length > CHARACTERS || text.split("\n", LINES + 1).length > LINES;

/** One turn. */
class TurnView {
  /**
   * @param {Turn} turn
   * @param {number} index from 1
   * @param {() => number} scale
   * @param {ChatActions} actions
   */
  constructor(turn, index, scale, actions) {
    this.turn = turn;
    this.actions = actions;
    this.scale = scale;
    /** Whether the prompt shows its tokens yet. */
    this.heard = false;
    this.answers = [0, 1].map((lane) => new AnswerView(turn, lane, scale, actions.choose));
    this.text = h("p", {}, turn.prompt);
    this.template = h("p", { className: "template" });
    this.bubble = h("div", { className: "bubble" }, this.text, this.template);
    if (isLong(turn.prompt)) this.fold();
    keyWalk(this.bubble);
    this.edit = iconButton("edit", "Edit and send again", () => this.openEditor());
    this.prompt = h(
      "div",
      { className: "prompt" },
      h("h2", { className: "sr-only" }, `Turn ${index}: your message`),
      this.bubble,
      h("div", { className: "tools" }, this.edit),
    );
    this.speed = h("span", { className: "muted" });
    this.again = h(
      "button",
      { type: "button", className: "quiet", title: "Send the same message again, with the steering as it is set now", onclick: () => actions.resend(turn, turn.prompt) },
      "Run again",
    );
    this.several = h("button", { type: "button", className: "quiet several", title: "The same message at several strengths, side by side", onclick: () => actions.compare(turn.prompt) }, "At several strengths");
    this.foot = h("div", { className: "turn-foot", hidden: true }, this.again, this.several, this.speed);
    this.trouble = h("div");
    this.node = h(
      "article",
      { className: "turn" },
      this.prompt,
      h("div", { className: "answers" }, ...this.answers.map((view) => view.node)),
      this.trouble,
      this.foot,
    );
  }

  update() {
    const { turn } = this;
    for (const view of this.answers) view.update();
    const running = turn.state === "running";
    const { prompt } = turn.answers[0];
    // Once when the tokens arrive, and once more with the turn's scale.
    if (prompt.length && (!this.heard || !running)) {
      this.heard = true;
      const { message, template } = heardPrompt(turn, prompt, this.scale());
      this.text.replaceChildren(...message);
      this.template.replaceChildren(...template);
    }
    this.foot.hidden = running && !turn.tokensPerSecond;
    this.again.hidden = this.several.hidden = running;
    this.several.hidden ||= turn.tracked === null;
    this.edit.hidden = running;
    this.speed.textContent = turn.tokensPerSecond ? `${number(Math.round(turn.tokensPerSecond * 10) / 10)} tokens per second` : "";
    if (turn.error && turn.state === "failed" && !this.trouble.firstChild) {
      // A dead engine has a panel of its own, below the turns.
      const { code, message } = turn.error;
      this.trouble.append(isFatal(code) ? h("p", { className: "turn-error" }, message) : errorPanel(turn.error, []));
    }
  }

  /** Shows the beginning of a long message, and a button for the rest. */
  fold() {
    const { bubble, text } = this;
    const words = number(this.turn.prompt.split(/\s+/).filter(Boolean).length);
    const button = h("button", { type: "button", className: "quiet", "aria-expanded": "false" });
    const draw = () => {
      const folded = bubble.classList.contains("folded");
      button.textContent = folded ? `Show all of it (${words} words)` : "Show less";
      button.setAttribute("aria-expanded", String(!folded));
    };
    button.addEventListener("click", () => {
      bubble.classList.toggle("folded");
      draw();
    });
    // A token that the keyboard walks to must be in sight.
    text.addEventListener("focusin", (event) => {
      const token = event.target instanceof Element ? event.target.getBoundingClientRect() : null;
      if (!token || token.bottom <= text.getBoundingClientRect().bottom) return;
      bubble.classList.remove("folded");
      draw();
    });
    bubble.classList.add("folded");
    text.after(button);
    draw();
  }

  openEditor() {
    const field = h("textarea", { value: this.turn.prompt, rows: 3, "aria-label": "Your message" });
    const close = () => {
      editor.replaceWith(this.bubble);
      this.edit.hidden = false;
      this.edit.focus();
    };
    const send = () => {
      const prompt = field.value.trim();
      if (prompt) this.actions.resend(this.turn, prompt);
    };
    const editor = h(
      "div",
      { className: "editor" },
      field,
      h(
        "div",
        { className: "actions" },
        h("button", { type: "button", className: "button primary", onclick: send }, "Send again"),
        h("button", { type: "button", className: "button", onclick: close }, "Keep as it is"),
      ),
    );
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    this.edit.hidden = true;
    this.bubble.replaceWith(editor);
    field.focus();
  }
}
