// The conversation: what is sent, what comes back, and the buttons around it. Loaded by index.html.
// One answer is written at a time; `answering` holds what stops it.

import { copy, growing, isSend, MessageView } from "./message.js";
import { askKey, settings, wire } from "./settings.js";
import { loadMessages, save } from "./store.js";
import { fetchModel, ServerError, streamChat } from "./stream.js";

const byId = (id) => document.getElementById(id);
const log = byId("log");
const field = byId("message");
const model = { name: "", context: null };
let views = loadMessages().map(view);
let answering = null; // AbortController
let follow = true; // the end of the text stays in sight until the user scrolls up

function view(message) {
  const made = new MessageView(message, { edit, regenerate, grown: scroll, mayEdit: () => !answering });
  return made;
}

// What the user does

function submit() {
  const text = field.value.trim();
  if (!text || answering) return;
  field.value = "";
  field.dispatchEvent(new Event("input"));
  add({ role: "user", content: text });
  answer();
}

function edit(changed, text) {
  changed.message.content = text;
  changed.setNote("");
  changed.show();
  keepUpTo(changed);
  if (changed.message.role === "user") answer();
}

function regenerate(old) {
  if (answering) return;
  const before = views[views.indexOf(old) - 1];
  if (!before) return;
  keepUpTo(before);
  answer();
}

function stop() {
  answering?.abort();
}

function clear() {
  stop();
  views = [];
  showAll();
  keep();
  showUse(null);
  say("New chat.");
  field.focus();
}

// The answer

async function answer() {
  clearProblem();
  const stopper = new AbortController();
  const made = add({ role: "assistant", content: "" });
  busy(stopper);
  const writer = made.write();
  const meter = new Meter();
  let problem = null;
  try {
    for await (const chunk of streamChat(body(), stopper.signal)) take(chunk, writer, meter);
  } catch (error) {
    problem = error;
  }
  writer.end();
  busy(null);
  close(made, meter, problem);
}

/** The request: the instruction, then all messages but the one that is about to be written. */
function body() {
  const { system, sampling } = settings();
  const messages = views.slice(0, -1).map(({ message }) => ({ role: message.role, content: message.content }));
  if (system) messages.unshift({ role: "system", content: system });
  return { model: model.name || "default", messages, ...sampling };
}

function take(chunk, writer, meter) {
  const choice = chunk.choices?.[0];
  const text = choice?.delta?.content;
  if (text) {
    meter.tick();
    writer.add(text);
  }
  if (choice?.finish_reason) meter.reason = choice.finish_reason;
  if (chunk.usage) meter.usage = chunk.usage;
}

/** How fast an answer came: from the first text to the last, so that reading the prompt does not count. */
class Meter {
  constructor() {
    this.first = this.last = 0;
    this.usage = this.reason = null;
  }

  tick() {
    this.last = performance.now();
    this.first ||= this.last;
  }

  note() {
    const tokens = this.usage?.completion_tokens;
    const seconds = (this.last - this.first) / 1000;
    const parts = [];
    if (tokens) parts.push(`${count(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
    if (tokens > 1 && seconds > 0) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
    if (this.reason === "length") parts.push("cut at the limit");
    return parts.join(" · ");
  }
}

function close(made, meter, problem) {
  const stopped = problem?.name === "AbortError";
  made.setNote(stopped ? "stopped" : meter.note());
  showUse(meter.usage);
  const there = views.includes(made); // not after "New chat"
  if (there && !made.message.content) remove(made);
  keep();
  if (stopped || !there) return say("Stopped.");
  if (problem) return fail(problem, made);
  return say(`Answer: ${made.message.content.slice(0, 2000)}`);
}

// What goes wrong

async function fail(problem, made) {
  if (problem.status === 401) {
    say(problem.message);
    if (await askKey()) return retry(made);
  }
  showProblem(problem, () => retry(made));
  return undefined;
}

/** Ask again for the answer that failed; what there was of it is given up. */
function retry(made) {
  connect();
  if (views.includes(made)) regenerate(made);
  else answer();
}

function showProblem(problem, again) {
  const known = problem instanceof ServerError;
  if (!known) console.error(problem);
  const wait = problem.retryAfter ? ` The server proposes to wait ${problem.retryAfter} s.` : "";
  byId("problem-text").textContent = (known ? problem.message : "The page failed. Reload it.") + wait;
  byId("retry").onclick = () => {
    clearProblem();
    again();
  };
  byId("problem").hidden = false;
  scroll();
}

function clearProblem() {
  byId("problem").hidden = true;
}

// The model's name and state

async function connect() {
  try {
    Object.assign(model, await fetchModel());
    byId("model").textContent = model.name;
    document.title = `${model.name} · criadero`;
    document.body.dataset.state = "ready";
  } catch (error) {
    document.body.dataset.state = "waiting";
    if (error.status === 503) return loading();
    if (error.status === 401 && (await askKey())) return connect();
    byId("model").textContent = error.status === 401 ? "key needed" : "not connected";
    showProblem(error, connect);
  }
  return undefined;
}

function loading() {
  byId("model").textContent = "loading the model …";
  setTimeout(connect, 1500);
}

// What is shown

function add(message) {
  const made = view(message);
  views.push(made);
  log.append(made.element);
  document.body.classList.add("talking");
  follow = true;
  scroll();
  return made;
}

function remove(gone) {
  views = views.filter((one) => one !== gone);
  gone.element.remove();
}

function keepUpTo(last) {
  views = views.slice(0, views.indexOf(last) + 1);
  showAll();
  keep();
}

function showAll() {
  clearProblem();
  log.replaceChildren(...views.map((one) => one.element));
  document.body.classList.toggle("talking", views.length > 0);
}

function busy(stopper) {
  answering = stopper;
  document.body.classList.toggle("busy", Boolean(stopper));
  byId("send").hidden = Boolean(stopper);
  byId("stop").hidden = !stopper;
  if (stopper) {
    say("Answering.");
    keep();
  }
}

function showUse(usage) {
  const used = usage?.total_tokens;
  byId("use").textContent = used
    ? `${count(used)}${model.context ? ` of ${count(model.context)}` : ""} tokens of context`
    : "";
  const bar = byId("use-bar");
  bar.hidden = !(used && model.context);
  if (!bar.hidden) bar.value = used / model.context;
}

function count(number) {
  return number.toLocaleString("en");
}

function scroll() {
  if (follow) scrollTo({ top: document.documentElement.scrollHeight });
}

/** For those who hear the page. */
function say(text) {
  byId("status").textContent = text;
}

function keep() {
  const messages = views.map((one) => one.message);
  if (!save("messages", messages)) say("The browser does not keep this conversation.");
}

function keys(event) {
  if (event.key === "Escape" && answering) stop();
}

function lastOfUser() {
  return views.findLast((one) => one.message.role === "user");
}

function composerKeys(event) {
  if (isSend(event)) submit();
  else if (event.key === "ArrowUp" && !field.value && lastOfUser()) lastOfUser().edit();
  else return;
  event.preventDefault();
}

function start() {
  wire();
  showAll();
  growing(field);
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  field.addEventListener("keydown", composerKeys);
  byId("stop").addEventListener("click", stop);
  byId("new").addEventListener("click", clear);
  document.addEventListener("keydown", keys);
  log.addEventListener("click", ({ target }) => {
    if (target.matches(".copy-code")) copy(target.closest(".code").querySelector("code").textContent, target);
  });
  addEventListener("scroll", () => {
    const page = document.documentElement;
    follow = page.scrollHeight - scrollY - innerHeight < 60;
  }, { passive: true });
  addEventListener("pagehide", keep);
  scroll();
  field.focus();
  connect();
}

start();
