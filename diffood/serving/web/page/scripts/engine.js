// Runs detector.onnx by onnxruntime-web: on WebGPU or in WebAssembly, whichever is faster and agrees with Python.

import { readFile } from "./pixels.js";

const ENGINES = {
  webgpu: { name: "WebGPU", script: "ort.webgpu.bundle.min.js", binary: "ort-wasm-simd-threaded.asyncify.wasm" },
  wasm: { name: "WebAssembly", script: "ort.wasm.bundle.min.js", binary: "ort-wasm-simd-threaded.wasm" },
};
const MOST_THREADS = 4;
const FAST_ENOUGH = 100; // milliseconds per image, below which no other engine is downloaded and tried
const OTHER_PIXELS = "Transparent images, and images that are resized, may get other scores here than in Python.";
const SCORE_TOLERANCE = 1e-3; // of max(1, score): engines round differently, and a wrong one is off by far more

/**
 * Opens an engine whose answers for the check images are Python's.
 *
 * wanted: "webgpu" or "wasm" to have that one and no other, else "". say: is told what is being done.
 * Returns {name, threads, milliseconds, warnings, judge}; throws an Error that says why there is none.
 */
export async function openEngine(root, config, wanted, say) {
  say("Loading the detector…");
  const model = await fetchFile(root, config.detector);
  const externalData = [];
  for (const weights of config.weights) {
    externalData.push({ path: weights.file, data: await fetchFile(root, weights) });
  }
  const checks = await Promise.all(config.checks.map((check) => readCheck(root, config, check)));
  if (checks.some((check) => !check.same && check.answer)) {
    throw new Error("This browser changes the pixels of images (some do so for privacy), so verdicts would be wrong.");
  }
  const warnings = checks.every((check) => check.same) ? [] : [OTHER_PIXELS];
  let best;
  for (const kind of await listKinds(wanted)) {
    const { name } = ENGINES[kind];
    say(`Starting ${name}…`);
    try {
      const session = await startSession(root, kind, model, externalData);
      const milliseconds = await requireSameAnswers(session, config, checks);
      const judge = (pixels) => run(session, config, pixels);
      if (!best || milliseconds < best.milliseconds) best = { name, threads: session.threads, milliseconds, judge };
    } catch (error) {
      warnings.push(`${name} is not used: ${error.message}`);
    }
    if (best?.milliseconds < FAST_ENOUGH) break;
  }
  if (!best) throw new Error(warnings.join(" "));
  return { ...best, warnings };
}

async function fetchBytes(url) {
  const answer = await fetch(url, { cache: "no-cache" }); // a page that was exported again has other files
  if (!answer.ok) throw new Error(`${url} cannot be loaded: ${answer.status} ${answer.statusText}.`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function fetchFile(root, { file, size, sha256 }) {
  const bytes = await fetchBytes(new URL(file, root));
  if (bytes.length !== size) throw new Error(`${file} has ${bytes.length} bytes, not ${size}: export the page again.`);
  if (self.crypto.subtle) { // not where a page comes by http from another machine
    const digest = new Uint8Array(await self.crypto.subtle.digest("SHA-256", bytes));
    const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hash !== sha256) throw new Error(`${file} is not the one that was exported: export the page again.`);
  }
  return bytes;
}

/** A check image as this browser reads it, and whether these are the pixels that Python reads. */
async function readCheck(root, config, check) {
  const file = new Blob([await fetchBytes(new URL(check.image, root))], { type: "image/png" });
  const wanted = await fetchBytes(new URL(check.pixels, root));
  const { pixels } = await readFile(file, config.image, config.pillow);
  return { ...check, pixels, same: pixels.every((value, at) => value === wanted[at]) };
}

async function listKinds(wanted) {
  if (wanted) return [wanted];
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter && !adapter.info?.isFallbackAdapter ? ["webgpu", "wasm"] : ["wasm"]; // a fallback is a slow imitation
}

async function startSession(root, kind, model, externalData) {
  const ort = await import(new URL(`runtime/${ENGINES[kind].script}`, root).href);
  ort.env.wasm.wasmPaths = { wasm: new URL(`runtime/${ENGINES[kind].binary}`, root).href };
  ort.env.logLevel = "error";
  // Threads share memory, which browsers allow to pages that are served with COOP and COEP headers.
  const threads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency ?? 1) : 1;
  ort.env.wasm.numThreads = threads;
  const options = { executionProviders: [kind], logSeverityLevel: 3, externalData };
  const session = await ort.InferenceSession.create(model, options);
  return { ort, session, threads };
}

async function run({ ort, session }, { image }, pixels) {
  const { channels, height, width } = image;
  const answer = await session.run({ image: new ort.Tensor("uint8", pixels, [1, channels, height, width]) });
  const first = (name) => Number(answer[name].data[0]);
  return {
    score: first("score"),
    pValue: first("p_value"),
    threshold: first("threshold"),
    isOod: Boolean(first("is_ood")),
    predictedClass: first("predicted_class"),
    confidence: first("confidence"),
    denoised: answer.denoised?.data,
    heatMap: answer.heat_map?.data,
  };
}

/** Milliseconds of one image; throws an Error if the answer for a check image is not Python's. */
async function requireSameAnswers(session, config, checks) {
  let milliseconds = Infinity;
  for (const { pixels, answer } of checks.filter((check) => check.answer)) {
    const begun = performance.now();
    const { score, isOod } = await run(session, config, pixels);
    milliseconds = Math.min(milliseconds, performance.now() - begun);
    if (!isNear(score, answer.score ?? NaN) || isOod !== answer.is_ood) {
      throw new Error(`it gives a check image the score ${score}, and Python gives it ${answer.score}.`);
    }
  }
  return milliseconds;
}

function isNear(score, wanted) {
  if (!Number.isFinite(score) || !Number.isFinite(wanted)) return Number.isFinite(score) === Number.isFinite(wanted);
  return Math.abs(score - wanted) <= SCORE_TOLERANCE * Math.max(1, Math.abs(wanted));
}
