// Markdown while it is being written: paragraphs, headings, lists, quotes, tables, fenced code, rules.
// Entry point: `MarkdownView(element)`; `feed` adds text, `finish` ends it. A block that is finished is never touched
// again; only the last one is drawn anew, and it is cut when it grows beyond LONG: the work is linear in the text.

import { inline } from "./inline.js";

const LONG = 6000;
const FENCE = /^( *)(`{3,}|~{3,})[ \t]*([\w+#.-]{0,40})[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:[ \t]+|$)(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const CELLS = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.tail = ""; // the line that has no end yet
    this.block = null; // {kind, lines, length, node} or, in code, {kind: "code", indent, fence, code, tail, ready}
    this.preview = null; // an unfinished line below the open block
  }

  /** Add text; call it once a frame with all that came. */
  feed(text) {
    this.preview?.remove();
    const lines = (this.tail + text).split("\n");
    this.tail = lines.pop();
    for (const line of lines) this.line(line.replace(/\r$/, ""));
    if (this.tail.length > LONG) this.cut();
    this.draw(this.tail);
  }

  finish() {
    this.preview?.remove();
    if (this.tail) this.line(this.tail);
    this.tail = "";
    this.draw("");
    this.block = null;
  }

  /** A line of immense length is taken as it stands. */
  cut() {
    const text = this.tail;
    this.tail = "";
    if (this.block?.kind === "code") this.block.ready += text;
    else {
      this.line(text);
      this.close();
    }
  }

  line(line) {
    if (this.block?.kind === "code") return this.codeLine(line);
    const fence = FENCE.exec(line);
    if (fence) return this.openCode(fence);
    const kind = kindOf(line, this.block);
    if (kind === "blank" && this.block?.kind !== "list") return this.close();
    const joins = this.block?.kind === kind && kind !== "heading" && kind !== "rule";
    if (!joins && kind !== "blank") this.open(kind);
    return this.add(kind === "blank" ? "" : line);
  }

  add(line) {
    this.block.lines.push(line);
    this.block.length += line.length + 1;
    if (this.block.length > LONG) this.close();
  }

  open(kind) {
    this.close();
    this.block = { kind, lines: [], length: 0, node: null };
  }

  close() {
    this.draw("");
    this.block = null;
  }

  openCode([, indent, fence, language]) {
    this.close();
    const { node, code } = codeBlock(language);
    this.element.append(node);
    this.block = { kind: "code", indent: indent.length, fence, code, tail: null, ready: "" };
  }

  codeLine(line) {
    const { fence, indent } = this.block;
    const bare = line.trim();
    const ends = bare.length >= fence.length && bare === fence[0].repeat(bare.length);
    if (ends) this.close();
    else this.block.ready += line.slice(Math.min(indent, line.search(/\S|$/))) + "\n";
  }

  /** Draw the open block, with the line that is not whole yet. */
  draw(tail) {
    if (this.block?.kind === "code") this.drawCode(tail);
    else if (tail || this.block) this.drawBlock(tail);
  }

  drawCode(tail) {
    const block = this.block;
    block.tail?.remove();
    if (block.ready) block.code.append(block.ready);
    block.ready = "";
    const mayEnd = /^[ \t]*[`~]*$/.test(tail);
    block.tail = mayEnd ? null : document.createTextNode(tail);
    if (block.tail) block.code.append(block.tail);
  }

  /** The unfinished line may begin a block of its own; it is then shown below the open one until it is whole. */
  drawBlock(tail) {
    const kind = tail ? kindOf(tail, this.block) : "blank";
    const joins = tail && kind === this.block?.kind && kind !== "heading";
    if (this.block) this.replace(joins ? [...this.block.lines, tail] : this.block.lines);
    const begins = /^ *([`~#>]+|[-*+_]+|\d+[.)]?)? *$/.test(tail); // too little to know what it will be
    if (joins || kind === "blank" || begins) return;
    this.preview = render(kind, [tail]);
    this.element.append(this.preview);
  }

  replace(lines) {
    const node = render(this.block.kind, lines);
    if (this.block.node) this.block.node.replaceWith(node);
    else this.element.append(node);
    this.block.node = node;
  }
}

/** What a line is, after the block that is open. */
function kindOf(line, block) {
  if (!/\S/.test(line)) return "blank";
  if (HEADING.test(line)) return "heading";
  if (line.length < 200 && RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  const afterBlank = block?.lines?.at(-1) === "";
  if (block?.kind === "list" && (!afterBlank || /^ {2,}/.test(line))) return "list";
  return "paragraph";
}

function render(kind, lines) {
  if (kind === "heading") return heading(lines[0]);
  if (kind === "rule") return document.createElement("hr");
  if (kind === "quote") return quote(lines);
  if (kind === "list") return list(lines);
  if (lines.length > 1 && lines[0].includes("|") && lines[1].length < 1000 && CELLS.test(lines[1])) return table(lines);
  return element("p", inline(lines.join("\n").trim()));
}

function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

/** Headings of an answer begin below those of the page. */
function heading(line) {
  const [, signs, text] = HEADING.exec(line);
  return element(`h${Math.min(signs.length + 2, 6)}`, inline(text.replace(/[ \t]#+[ \t]*$/, "")));
}

function quote(lines) {
  const text = lines.map((line) => line.replace(QUOTE, "")).join("\n");
  const parts = text.split(/\n[ \t]*\n/).filter((part) => part.trim());
  return element("blockquote", ...parts.map((part) => element("p", inline(part))));
}

/** Items in order; an item that is further in than the last list's begins a list inside its last item. */
function list(lines) {
  const root = document.createDocumentFragment();
  const open = []; // [{node, indent}], outermost first
  for (const { indent, sign, text } of items(lines)) {
    while (open.length > 1 && indent < open.at(-1).indent) open.pop();
    const deeper = open.length && indent > open.at(-1).indent + 1 && open.length < 8;
    if (!open.length || deeper) {
      const node = listNode(sign);
      (open.at(-1)?.node.lastElementChild ?? root).append(node);
      open.push({ node, indent });
    }
    open.at(-1).node.append(element("li", inline(text.join("\n").trim())));
  }
  return root.firstElementChild;
}

function listNode(sign) {
  const ordered = /\d/.test(sign);
  const node = document.createElement(ordered ? "ol" : "ul");
  if (ordered) node.start = parseInt(sign, 10);
  return node;
}

function items(lines) {
  const found = [];
  for (const line of lines) {
    const hit = ITEM.exec(line);
    if (hit) found.push({ indent: hit[1].length, sign: hit[2], text: [hit[3]] });
    else found.at(-1).text.push(line.trim());
  }
  return found;
}

function table(lines) {
  const [head, , ...body] = lines.map(cells);
  const row = (tag, texts) => element("tr", ...texts.map((text) => element(tag, inline(text))));
  const rows = body.map((texts) => row("td", texts));
  const node = element("table", element("thead", row("th", head)), element("tbody", ...rows));
  const frame = element("div", node);
  frame.className = "table";
  frame.tabIndex = 0; // a wide table is scrolled with the keys too
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Table");
  return frame;
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split("|").map((cell) => cell.trim());
}

function codeBlock(language) {
  const code = element("code");
  const copy = element("button", "Copy");
  copy.type = "button";
  copy.className = "quiet copy-code";
  copy.setAttribute("aria-label", "Copy code");
  const pre = element("pre", code);
  pre.tabIndex = 0;
  const bar = element("div", element("span", language || "text"), copy);
  bar.className = "code-bar";
  const node = element("div", bar, pre);
  node.className = "code";
  return { node, code };
}
