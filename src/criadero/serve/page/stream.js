// Talking to the server: its errors in words, and answers as they are written (server-sent events over fetch).
// Entry points: `fetchModel` and `streamChat`, both of which throw only `ServerError` (or AbortError when stopped).

import { loadKey } from "./store.js";

/** What went wrong, in words for the user. `status` 0: the server was not reached. */
export class ServerError extends Error {
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const LOST = "The connection was lost. Check that the server is running, then try again.";

/** Return {name, context} of the served model; context is null where the server does not say. */
export async function fetchModel() {
  const response = await request("v1/models", {});
  const entry = (await whole(response)).data?.[0] ?? {};
  return { name: String(entry.id ?? "model"), context: Number(entry.context_length) || null };
}

/** Ask for an answer; yield each chunk of the protocol as an object, until the server says [DONE]. */
export async function* streamChat(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = parsed(data);
    if (chunk.error) throw new ServerError(said(chunk) ?? "The server failed. Try again.", { status: 500 });
    yield chunk;
  }
  throw new ServerError(LOST); // an answer that is whole ends with [DONE]
}

async function request(path, options) {
  const key = loadKey();
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Check that it is running, then try again.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Turn an HTTP error into words; the server's own message is the best there is. */
async function refusal(response) {
  const status = response.status;
  const retryAfter = Number(response.headers.get("retry-after")) || null;
  const message = said(await response.json().catch(() => null));
  return new ServerError(message ?? words(status), { status, retryAfter });
}

function words(status) {
  const known = {
    401: "The server asks for an API key.",
    413: "The conversation is too long for the server. Start a new chat.",
    429: "The server is busy. Wait a moment, then try again.",
    503: "The model is not ready yet. Wait a moment, then try again.",
  };
  return known[status] ?? `The server answered with the error ${status}. Try again.`;
}

function said(body) {
  const message = body?.error?.message;
  return typeof message === "string" && message ? message : null;
}

async function whole(response) {
  try {
    return await response.json();
  } catch {
    throw new ServerError(LOST);
  }
}

function parsed(data) {
  try {
    return JSON.parse(data) ?? {};
  } catch {
    throw new ServerError("The server sent something that is no answer. Try again.");
  }
}

/** Yield the data of each server-sent event. A line may come in parts, a character too. */
async function* events(stream) {
  let data = [];
  for await (const line of lines(stream)) {
    if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
    else if (line === "" && data.length) {
      yield data.join("\n");
      data = [];
    } // comments (": ping") and other fields say nothing to us
  }
}

async function* lines(stream) {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let parts = [];
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      const pieces = decoder.decode(value, { stream: true }).split("\n");
      for (const piece of pieces.slice(0, -1)) {
        yield (parts.join("") + piece).replace(/\r$/, "");
        parts = [];
      }
      parts.push(pieces.at(-1));
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading lets the server know
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError(LOST);
  }
}
