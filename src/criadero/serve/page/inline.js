// Markdown inside a line: code, bold, italic, links. What a model writes becomes text nodes and nothing else.
// Entry point: `inline(text)` returns nodes. One pass over the text and each mark is looked at once more at most, so
// the time is linear whatever the text; each kind of mark opens once, so nesting is never deeper than three.

const TAGS = { "**": "strong", "__": "strong", "*": "em", _: "em" };
// Bounded, and no two neighbouring parts of a pattern match the same character: nothing to backtrack into.
const LINK = /\[([^[\]\n]{1,500})\]\(<?([^()\s<>]{1,2000})>?(?: "[^"\n]{0,200}")?\)/y;
const ADDRESS = /https?:\/\/[^\s<>"'`()[\]{}]{1,2000}/y;
const PLAIN = /[^\\`*_[h]+|h(?!ttps?:\/\/)/y;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

/** Return the DOM nodes of a line or paragraph of Markdown. */
export function inline(text) {
  return build(pieces(text));
}

/** Cut text into {text}, {node} and {mark}; a mark that closes one knows it, and the other way round. */
function pieces(text) {
  const found = [];
  const open = new Map();
  const runs = ends(text);
  let at = 0;
  while (at < text.length) {
    const next =
      plain(text, at) ?? escaped(text, at) ?? code(text, at, runs) ?? link(text, at) ?? address(text, at) ??
      mark(text, at, [...open.keys()].at(-1)) ?? { text: text[at], length: 1 };
    if (next.mark) pair(next, found.length, found, open);
    found.push(next);
    at += next.length;
  }
  return found;
}

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function plain(text, at) {
  const hit = match(PLAIN, text, at);
  return hit && { text: hit[0], length: hit[0].length };
}

function escaped(text, at) {
  if (text[at] !== "\\" || !ESCAPABLE.test(text[at + 1] ?? "")) return null;
  return { text: text[at + 1], length: 2 };
}

/** For each length of a run of backticks, where such runs are, last first: closing ones are found without a search. */
function ends(text) {
  const runs = new Map();
  for (const hit of text.matchAll(/`+/g)) {
    const length = hit[0].length;
    if (!runs.has(length)) runs.set(length, []);
    runs.get(length).push(hit.index);
  }
  for (const places of runs.values()) places.reverse();
  return runs;
}

function code(text, at, runs) {
  if (text[at] !== "`") return null;
  let length = 1;
  while (text[at + length] === "`") length += 1;
  const places = runs.get(length) ?? [];
  while (places.length && places.at(-1) <= at) places.pop();
  const end = places.at(-1);
  if (end === undefined) return { text: "`".repeat(length), length };
  const node = document.createElement("code");
  const inner = text.slice(at + length, end);
  node.textContent = /^ .* $/s.test(inner) && inner.trim() ? inner.slice(1, -1) : inner;
  return { node, length: end + length - at };
}

function link(text, at) {
  const hit = text[at] === "[" && match(LINK, text, at);
  const node = hit && anchor(hit[2], hit[1]);
  return node ? { node, length: hit[0].length } : null;
}

function address(text, at) {
  const hit = text[at] === "h" && match(ADDRESS, text, at);
  if (!hit) return null;
  let length = hit[0].length;
  while (".,;:!?*_".includes(hit[0][length - 1])) length -= 1; // the end of a sentence is not of the address
  const node = anchor(hit[0].slice(0, length), hit[0].slice(0, length));
  return node ? { node, length } : null;
}

/** A link to the web; null for any other scheme. */
function anchor(href, label) {
  if (!/^https?:\/\//i.test(href) || !URL.canParse(href)) return null;
  const node = document.createElement("a");
  node.href = href;
  node.textContent = label;
  node.rel = "noopener noreferrer";
  node.target = "_blank";
  return node;
}

/** `innermost` is the mark opened last: of `***` it is closed first. */
function mark(text, at, innermost) {
  const sign = text[at];
  if (sign !== "*" && sign !== "_") return null;
  const three = text[at + 1] === sign && text[at + 2] === sign;
  const name = text[at + 1] !== sign || (three && innermost === sign) ? sign : sign + sign;
  const [before, after] = [text[at - 1] ?? " ", text[at + name.length] ?? " "];
  const inWord = sign === "_"; // snake_case is no emphasis
  return {
    mark: name,
    length: name.length,
    opens: /\S/.test(after) && !(inWord && WORD.test(before)),
    closes: /\S/.test(before) && !(inWord && WORD.test(after)),
  };
}

/** Close the mark of this name that is open, and with it forget those opened inside; or open one. */
function pair(piece, index, found, open) {
  const start = open.get(piece.mark);
  if (start !== undefined && piece.closes && start < index - 1) {
    found[start].partner = piece.partner = true;
    for (const [name, place] of [...open]) if (place >= start) open.delete(name);
    piece.end = true;
  } else if (piece.opens && start === undefined) open.set(piece.mark, index);
}

function build(found) {
  const root = document.createDocumentFragment();
  let into = root;
  for (const piece of found) {
    if (!piece.partner) into.append(piece.node ?? piece.text ?? piece.mark);
    else if (piece.end) into = into.parentNode;
    else into = into.appendChild(document.createElement(TAGS[piece.mark]));
  }
  root.normalize();
  return root;
}
