// Draws pixels, denoised images and heat maps on canvases.

const LARGEST_SIDE = 320; // of a picture on the page; hundreds of larger ones would fill a phone's memory
const FULL_HEAT = 1; // root mean square change, of 2 from black to white, that has the brightest colour
// The colour map inferno of matplotlib (CC0) at nine places.
const INFERNO = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50],
  [252, 255, 164],
];

/** A canvas of pixels uint8 [C, H, W]. */
export function drawPixels(pixels, { channels, height, width }, label) {
  const size = height * width;
  return draw(width, height, label, (at) =>
    channels === 1 ? [pixels[at], pixels[at], pixels[at]] : [pixels[at], pixels[size + at], pixels[2 * size + at]],
  );
}

/** A canvas of values float32 [C, H, W] in [-1, 1]; black where they are not finite. */
export function drawValues(values, shape, label) {
  const pixels = Uint8ClampedArray.from(values, (value) => (Number.isFinite(value) ? (value + 1) * 127.5 : 0));
  return drawPixels(pixels, shape, label);
}

/** A canvas of a heat map float32 [H, W]. */
export function drawHeat(heat, { height, width }, label) {
  return draw(width, height, label, (at) => colour(heat[at]));
}

function colour(heat) {
  const share = Number.isFinite(heat) ? Math.min(1, heat / FULL_HEAT) : 1;
  const place = share * (INFERNO.length - 1);
  const before = Math.min(INFERNO.length - 2, Math.floor(place));
  return INFERNO[before].map((value, at) => value + (place - before) * (INFERNO[before + 1][at] - value));
}

function draw(width, height, label, colourAt) {
  const image = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) image.data.set([...colourAt(at), 255], 4 * at);
  const whole = new OffscreenCanvas(width, height);
  whole.getContext("2d").putImageData(image, 0, 0);
  const scale = Math.min(1, LARGEST_SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
  return canvas;
}
