// Shows verdicts: one card for each image. Names of files and classes become text nodes, never HTML.

import { drawHeat, drawPixels, drawValues } from "./pictures.js";

const CLASSES_NAMED = 12; // as in `diffood report`

/** An element with these properties and children: elements, or strings that become text. */
export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const number = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "not finite");
const percent = (value) => `${(100 * value).toFixed(1)}%`;

// Control and direction characters, and those that nobody sees.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** A name of a file as it is shown: what is hidden in it, or would move what stands around it, is an escape. */
export function visible(name) {
  return name.replace(HIDDEN, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

/** "in-distribution" or "out-of-distribution". */
export function verdictText(verdict) {
  return verdict.isOod ? "out-of-distribution" : "in-distribution";
}

/** The card of an image that was judged. */
export function makeCard(name, verdict, config) {
  const { isOod, pValue, score, threshold, predictedClass, confidence, notes } = verdict;
  const text = verdictText(verdict);
  return element("li", { className: "card" },
    element("h2", {}, name),
    element("p", { className: `verdict ${isOod ? "flagged" : "passed"}` }, `${isOod ? "⚠" : "✓"} ${text}`),
    element("p", { className: "numbers" }, `p-value ${number(pValue)}, score ${number(score)}`),
    element("p", { className: "numbers quiet small" },
      `flagged above ${number(threshold)}; ${Math.round(verdict.milliseconds)} ms`),
    element("p", {}, `looks most like ${config.class_names[predictedClass]}, ${percent(confidence)}`),
    ...(notes.length ? [element("p", { className: "quiet small" }, notes.join("; "))] : []),
    element("div", { className: "three" }, ...drawAll(name, verdict, config.image)),
  );
}

/** The card of an image without a verdict. */
export function makeRefusedCard(name, reason) {
  return element("li", { className: "card" },
    element("h2", {}, name),
    element("p", { className: "verdict flagged" }, "⚠ no verdict"),
    element("p", {}, reason),
  );
}

function drawAll(name, { pixels, denoised, heatMap }, shape) {
  const figures = [figure(drawPixels(pixels, shape, `${name} as the detector sees it`), "original")];
  if (denoised) figures.push(figure(drawValues(denoised, shape, `${name} after denoising`), "denoised"));
  if (heatMap) figures.push(figure(drawHeat(heatMap, shape, `where denoising changed ${name}`), "heat map"));
  return figures;
}

function figure(canvas, caption) {
  return element("figure", {}, canvas, element("figcaption", {}, caption));
}

/** Terms and texts about the detector, into a definition list. */
export function showFacts(list, config) {
  const { image, class_names: names } = config;
  const size = [config.detector, ...config.weights].reduce((sum, file) => sum + file.size, 0);
  const more = names.length > CLASSES_NAMED ? ` and ${names.length - CLASSES_NAMED} more` : "";
  const facts = {
    verdict: config.threshold,
    guarantee: config.guarantee,
    "p-value": "The share of in-distribution images whose score is at least as high: small where an image is unusual.",
    ...(config.denoises && { "heat map": "Where denoising changed the image: black for nothing, bright for much." }),
    classes: `${names.length}: ${names.slice(0, CLASSES_NAMED).join(", ")}${more}`,
    images: `${image.width} x ${image.height} pixels, ${image.channels === 1 ? "grey" : "RGB"}; others are resized`,
    detector: `${config.bundle}, ${config.precision}, ${(size / 1e6).toFixed(1)} MB`,
    "made with": `diffood ${config.diffood}, onnxruntime-web ${config.onnxruntime_web} (MIT License, Microsoft)`,
  };
  for (const [term, text] of Object.entries(facts)) list.append(element("dt", {}, term), element("dd", {}, text));
}
