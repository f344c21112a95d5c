// Reads an image file to the pixels that diffood's Python gets from it: upright, over black, grey or RGB, resized.

import { resize } from "./resize.js";

const MOST_BYTES = 64 * 2 ** 20; // the limits of `diffood serve-batch`
const MOST_PIXELS = 50_000_000;
const STRIP_PIXELS = 2 ** 22; // read at once: some phones have no canvas for a whole photograph
const STRETCH_TOLERANCE = 1.01; // aspect ratios that differ by more are called stretched
const OPAQUE = 255;

/** Why an image gets no verdict, as a sentence for the user. */
export class Refusal extends Error {}

/**
 * Pixels of a file for a model that takes `shape`, {channels, height, width}.
 * Returns {pixels: Uint8Array [C, H, W], notes: what was changed}; throws a Refusal.
 */
export async function readFile(file, shape, pillow) {
  if (file.size === 0) throw new Refusal("The file is empty (0 bytes); copy it again from its source.");
  if (file.size > MOST_BYTES) {
    throw new Refusal(`The file has ${file.size} bytes and the limit is ${MOST_BYTES}; save it smaller.`);
  }
  await refuseFrames(file);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Refusal("This browser cannot decode the file: it is damaged, or no image; save it as PNG or JPEG.");
  }
  const read = readBitmap(bitmap, shape, pillow);
  if (await hasSixteenBits(file)) read.notes.unshift("reduced from 16 bits to 8");
  return read;
}

/** Whether a file is a PNG of 16 bits per value: see the header chunk in its specification. */
async function hasSixteenBits(file) {
  const head = new Uint8Array(await file.slice(0, 25).arrayBuffer());
  return String.fromCharCode(...head.subarray(1, 4)) === "PNG" && head[24] === 16;
}

/** The same of an ImageBitmap, which is closed. */
export function readBitmap(bitmap, shape, pillow) {
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) {
      throw new Refusal(
        `The image has ${width}x${height} = ${width * height} pixels and the limit is ${MOST_PIXELS}; scale it down.`,
      );
    }
    const { picture, notes } = toPicture(bitmap, shape.channels);
    if (width !== shape.width || height !== shape.height) {
      const change = (width * shape.height) / (height * shape.width);
      const stretched = Math.max(change, 1 / change) > STRETCH_TOLERANCE;
      notes.push(`resized from ${width}x${height}${stretched ? " and stretched" : ""}`);
    }
    return { pixels: toPlanes(resize(picture, shape.width, shape.height, pillow)), notes };
  } finally {
    bitmap.close();
  }
}

/** Refuses an animation, where the browser can tell: which frame is meant is not ours to guess. */
async function refuseFrames(file) {
  if (!("ImageDecoder" in self) || !file.type || !(await ImageDecoder.isTypeSupported(file.type))) return;
  const decoder = new ImageDecoder({ type: file.type, data: file.stream() });
  let frames = 1;
  try {
    await decoder.completed;
    frames = decoder.tracks.selectedTrack?.frameCount ?? 1;
  } catch {
    return; // what is damaged is refused where it is decoded
  } finally {
    decoder.close();
  }
  if (frames > 1) {
    throw new Refusal(`The file has ${frames} frames and a verdict is about one image; save each frame as a file.`);
  }
}

/** A picture of one or three channels, and notes of what was changed. */
function toPicture(bitmap, channels) {
  const { width, height } = bitmap;
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const data = new Uint8Array(width * height * channels);
  const found = { transparent: false, coloured: false };
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    copyStrip(readStrip(context, bitmap, top, count, found), data, top * width * channels, channels, found);
  }
  const notes = found.transparent ? ["composited over black"] : [];
  if (channels === 1 && found.coloured) notes.push("converted from RGB to grey");
  return { picture: { width, height, channels, data }, notes };
}

/** RGBA values of some rows, laid over black where they are transparent. */
function readStrip(context, bitmap, top, rows, found) {
  const { width } = bitmap;
  context.globalCompositeOperation = "copy";
  context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
  const { data } = context.getImageData(0, 0, width, rows);
  let at = 3;
  while (at < data.length && data[at] === OPAQUE) at += 4;
  if (at >= data.length) return data;
  found.transparent = true;
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "black";
  context.fillRect(0, 0, width, rows);
  return context.getImageData(0, 0, width, rows).data;
}

/** Grey is ITU-R 601-2 luma in the integers of Pillow's Convert.c. */
function copyStrip(rgba, data, start, channels, found) {
  let to = start;
  for (let at = 0; at < rgba.length; at += 4) {
    const red = rgba[at];
    const green = rgba[at + 1];
    const blue = rgba[at + 2];
    if (red !== green || green !== blue) found.coloured = true;
    if (channels === 1) {
      data[to++] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
    } else {
      data[to++] = red;
      data[to++] = green;
      data[to++] = blue;
    }
  }
}

/** [H, W, C] to [C, H, W]. */
function toPlanes({ channels, data }) {
  if (channels === 1) return data;
  const size = data.length / channels;
  const planes = new Uint8Array(data.length);
  for (let at = 0, place = 0; place < size; place++) {
    for (let channel = 0; channel < channels; channel++) planes[channel * size + place] = data[at++];
  }
  return planes;
}
