// One message on the page: its text, what is below it, and its buttons.
// Entry point: `MessageView(message, actions)`; its `element` goes into the conversation. What it shows is text.

import { MarkdownView } from "./markdown.js";

const NAMES = { user: "You", assistant: "Model" };

export class MessageView {
  /** `actions`: {edit(view, text), regenerate(view)}, called when the user asks for it. */
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.body = make("div", "body");
    this.note = make("span", "note", message.note ?? "");
    this.foot = make("div", "foot");
    this.element = make("article", message.role);
    this.element.setAttribute("aria-label", NAMES[message.role]);
    this.element.append(this.body, this.foot);
    this.fillFoot();
    this.show();
  }

  fillFoot() {
    const mine = this.message.role === "user";
    this.foot.append(button("Copy", () => copy(this.message.content, this.foot.firstChild)));
    this.foot.append(button("Edit", () => this.edit()));
    if (!mine) this.foot.append(button("Regenerate", () => this.actions.regenerate(this)), this.note);
  }

  /** Draw the whole text anew. */
  show() {
    this.body.replaceChildren();
    if (this.message.role === "user") this.body.textContent = this.message.content;
    else {
      const view = new MarkdownView(this.body);
      view.feed(this.message.content);
      view.finish();
    }
  }

  /** Begin an answer: return {add(text), end()}; what comes is drawn once a frame. */
  write() {
    const view = new MarkdownView(this.body);
    let waiting = "";
    let frame = 0;
    const draw = () => {
      frame = 0;
      view.feed(waiting);
      waiting = "";
      this.actions.grown();
    };
    this.element.classList.add("writing");
    const add = (text) => {
      this.message.content += text;
      waiting += text;
      // A page that is hidden gets no frames; the text waits and is drawn when it is seen again.
      frame ||= requestAnimationFrame(draw);
    };
    const end = () => {
      cancelAnimationFrame(frame);
      draw();
      view.finish();
      this.element.classList.remove("writing");
    };
    return { add, end };
  }

  setNote(text) {
    this.message.note = text;
    this.note.textContent = text;
  }

  /** Replace the text by a field; the user's message is then sent again, the model's is kept as written. */
  edit() {
    if (this.element.classList.contains("editing") || !this.actions.mayEdit()) return;
    const field = make("textarea", "field");
    field.value = this.message.content;
    field.setAttribute("aria-label", "Edit message");
    const done = () => {
      this.element.classList.remove("editing");
      this.show();
      this.foot.children[1].focus();
    };
    const accept = () => {
      const text = field.value.trim();
      if (!text || !this.actions.mayEdit()) return;
      done();
      this.actions.edit(this, text);
    };
    const bar = make("div", "edit-bar");
    const sends = this.message.role === "user";
    bar.append(button("Cancel", done), button(sends ? "Send again" : "Keep", accept, "main"));
    this.element.classList.add("editing");
    this.body.replaceChildren(field, bar);
    growing(field);
    field.focus();
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") done();
      else if (isSend(event)) accept();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }
}

/** Enter alone sends; with Shift, or while an input method composes, it does not. */
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing;
}

/** Let a field be as high as its text. */
export function growing(field) {
  const fit = () => {
    field.rows = 1;
    const line = parseFloat(getComputedStyle(field).lineHeight);
    const padding = field.offsetHeight - line;
    field.rows = Math.max(1, Math.min(12, Math.round((field.scrollHeight - padding) / line)));
  };
  field.addEventListener("input", fit);
  fit();
}

/** Copy text and say so on the button. */
export async function copy(text, from) {
  const before = from.dataset.label ?? from.textContent;
  from.dataset.label = before;
  const done = await navigator.clipboard.writeText(text).then(() => true, () => copyOld(text));
  from.textContent = done ? "Copied" : "Not allowed";
  setTimeout(() => (from.textContent = before), 1500);
}

/** Without https, browsers have no clipboard but this. */
function copyOld(text) {
  const field = make("textarea", "unseen");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

function make(tag, name, text = "") {
  const node = document.createElement(tag);
  node.className = name;
  node.textContent = text;
  return node;
}

function button(text, action, name = "quiet") {
  const node = make("button", name, text);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
}
