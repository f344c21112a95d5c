// Prints the verdict on PNG files, a line of JSON each: node verdict.mjs BUNDLE/detector.onnx IMAGE.png ...
import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { PNG } from "pngjs";

const [model, ...files] = process.argv.slice(2);
const session = await InferenceSession.create(model);
const [, channels, height, width] = session.inputMetadata[0].shape;
if (!session.outputNames.includes("is_ood")) throw new Error(`${model} gives no verdicts: calibrate the bundle first.`);

// The planes of an opaque image of the model's size: uint8 [1, C, H, W], grey as Pillow makes it (ITU-R 601-2).
function readPixels(file) {
  const png = PNG.sync.read(readFileSync(file));
  if (png.width !== width || png.height !== height)
    throw new Error(`${file} is ${png.width}x${png.height}, the model takes ${width}x${height}: resize it first.`);
  const pixels = new Uint8Array(channels * height * width);
  for (let at = 0; at < height * width; at++) {
    const [r, g, b, alpha] = png.data.subarray(4 * at, 4 * at + 4);
    if (alpha !== 255) throw new Error(`${file} has transparent pixels: flatten it first.`);
    if (channels === 1) pixels[at] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else [r, g, b].forEach((value, plane) => (pixels[plane * height * width + at] = value));
  }
  return pixels;
}

const named = ["is_ood", "p_value", "score", "threshold", "predicted_class", "confidence"];
for (const file of files) {
  const image = new Tensor("uint8", readPixels(file), [1, channels, height, width]);
  const answer = await session.run({ image }, named);
  const verdict = Object.fromEntries(named.map((name) => [name, Number(answer[name].data[0])]));
  console.log(JSON.stringify({ file, ...verdict, is_ood: verdict.is_ood === 1 }));
}
