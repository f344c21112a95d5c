// The engine's thread: is given images, and answers with verdicts, so that the page never stands still.

import { openEngine } from "./engine.js";
import { Refusal, readBitmap, readFile } from "./pixels.js";

let config;
let engine;
let last = Promise.resolve(); // an engine does one image at a time

async function start(message) {
  config = message.config;
  engine = await openEngine(message.root, config, message.wanted, (text) => postMessage({ kind: "progress", text }));
  const { name, threads, milliseconds, warnings } = engine;
  postMessage({ kind: "ready", name, threads, milliseconds, warnings });
}

async function judge({ id, source }) {
  try {
    const read = source instanceof ImageBitmap ? readBitmap : readFile;
    const { pixels, notes } = await read(source, config.image, config.pillow);
    const begun = performance.now();
    const verdict = await engine.judge(pixels);
    postMessage({ kind: "judged", id, verdict: { ...verdict, pixels, notes, milliseconds: performance.now() - begun } });
  } catch (error) {
    const reason = error instanceof Refusal ? error.message : `The image could not be judged: ${error.message}`;
    postMessage({ kind: "refused", id, reason });
  }
}

self.onmessage = ({ data }) => {
  if (data.kind === "judge") last = last.then(() => judge(data));
  else start(data).catch((error) => postMessage({ kind: "failed", reason: error.message }));
};
