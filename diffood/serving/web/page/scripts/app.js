// The page: takes images from files, the clipboard and the camera, has them judged one after another, shows the cards.

import { closeCamera, openCamera, takePicture } from "./camera.js";
import { element, makeCard, makeRefusedCard, showFacts, verdictText, visible } from "./results.js";

const root = new URL("../", import.meta.url);
const at = (id) => document.getElementById(id);
const counts = { judged: 0, flagged: 0, refused: 0, waiting: 0 };
const pending = new Map(); // by id: what to do with an answer
let config;
let worker;
let asked = 0;
let pictures = 0;

/** A worker that obeys the page's rules: one from a blob has the page's Content-Security-Policy, a file has none. */
function startWorker() {
  const script = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const place = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  return new Worker(place, { type: "module" });
}

function fail(reason) {
  at("engine").className = "flagged";
  at("engine").textContent = reason;
}

function showReady({ name, threads, milliseconds, warnings }) {
  const how = threads > 1 ? `${name}, ${threads} threads` : name;
  at("engine").textContent = `Ready: ${how}, ${Math.round(milliseconds)} ms per image. ${warnings.join(" ")}`;
  at("files").disabled = at("open-camera").disabled = false;
}

function receive({ data }) {
  if (data.kind === "progress") at("engine").textContent = data.text;
  else if (data.kind === "failed") fail(data.reason);
  else if (data.kind === "ready") showReady(data);
  else pending.get(data.id)(data);
}

/** The worker's answer about one image: a file, or an ImageBitmap. */
function ask(source) {
  const id = asked++;
  return new Promise((resolve) => {
    pending.set(id, resolve);
    worker.postMessage({ kind: "judge", id, source }, source instanceof ImageBitmap ? [source] : []);
  }).finally(() => pending.delete(id));
}

function showSummary() {
  const { judged, flagged, refused, waiting } = counts;
  const parts = [`${judged} judged, ${flagged} out-of-distribution`];
  if (refused) parts.push(`${refused} without a verdict`);
  if (waiting) parts.push(`${waiting} waiting`);
  at("summary").textContent = parts.join(", ");
  at("bar").hidden = false;
}

/** Judges images {name, source}, and puts their cards above earlier ones. */
async function judgeAll(images) {
  if (at("files").disabled || images.length === 0) return;
  const gallery = element("ol", { className: "gallery" });
  at("results").prepend(gallery);
  counts.waiting += images.length;
  showSummary();
  for (const { name, source } of images) {
    const answer = await ask(source);
    counts.waiting -= 1;
    const judged = answer.kind === "judged";
    counts.judged += judged;
    counts.refused += !judged;
    counts.flagged += judged && answer.verdict.isOod;
    gallery.append(judged ? makeCard(name, answer.verdict, config) : makeRefusedCard(name, answer.reason));
    at("latest").textContent = `${name}: ${judged ? verdictText(answer.verdict) : answer.reason}`; // is read aloud
    showSummary();
  }
}

const judgeFiles = (files) => judgeAll(Array.from(files, (file) => ({ name: visible(file.name), source: file })));

function listenForFiles() {
  at("files").addEventListener("change", () => judgeFiles(at("files").files).finally(() => (at("files").value = "")));
  addEventListener("paste", (event) => judgeFiles(event.clipboardData.files));
  addEventListener("dragover", (event) => {
    event.preventDefault(); // a browser would show a dropped image in place of the page
    at("drop").classList.add("over");
  });
  addEventListener("dragleave", () => at("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    judgeFiles(event.dataTransfer.files);
  });
  at("clear").addEventListener("click", () => {
    at("results").replaceChildren();
    Object.assign(counts, { judged: 0, flagged: 0, refused: 0 });
    at("bar").hidden = true;
  });
}

function listenForCamera() {
  const video = at("video");
  at("open-camera").addEventListener("click", async () => {
    at("camera-problem").textContent = "";
    try {
      await openCamera(video);
    } catch (error) {
      at("camera-problem").textContent = error.message;
      return;
    }
    at("camera").hidden = false;
    at("open-camera").disabled = true;
    at("take").focus();
  });
  at("take").addEventListener("click", async () => {
    const source = await takePicture(video, config.image);
    judgeAll([{ name: `picture ${++pictures}`, source }]);
  });
  at("close-camera").addEventListener("click", () => {
    closeCamera(video);
    at("camera").hidden = true;
    at("open-camera").disabled = false;
    at("open-camera").focus();
  });
}

async function start() {
  const answer = await fetch(new URL("config.json", root), { cache: "no-cache" });
  if (!answer.ok) throw new Error(`config.json cannot be loaded: ${answer.status} ${answer.statusText}.`);
  config = await answer.json();
  showFacts(at("facts"), config);
  at("about").hidden = false;
  worker = startWorker();
  worker.onmessage = receive;
  worker.onerror = (event) => fail(`The engine stopped: ${event.message}. Load the page again.`);
  const wanted = new URLSearchParams(location.search).get("engine") ?? "";
  worker.postMessage({ kind: "start", root: root.href, config, wanted: ["webgpu", "wasm"].includes(wanted) ? wanted : "" });
}

listenForFiles();
listenForCamera();
start().catch((error) => fail(error.message));
