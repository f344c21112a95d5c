// Resizes 8-bit pictures to the bit as Pillow's Image.resize((w, h), BICUBIC, reducing_gap=3.0) does.
//
// Pillow first averages whole boxes of pixels (Reduce.c), down to about three times the wanted size, and then filters
// rows and columns (Resample.c), both in integers. Since version 13 it filters the columns first where that is less
// work. A picture is {width, height, channels, data}: a Uint8Array with the channels of a pixel beside each other.

const REDUCING_GAP = 3;
const SUPPORT = 2; // of the bicubic filter, in pixels of the result
const PRECISION = 22; // bits of a filter's coefficients: 32 - 8 - 2

/**
 * The picture at another size, without keeping its aspect ratio.
 * `pillow`: the major version whose pixels are wanted.
 */
export function resize(picture, width, height, pillow) {
  if (picture.width === width && picture.height === height) return picture;
  const across = Math.trunc(picture.width / width / REDUCING_GAP) || 1;
  const down = Math.trunc(picture.height / height / REDUCING_GAP) || 1;
  const reduced = across > 1 || down > 1 ? reduce(picture, across, down) : picture;
  const right = Math.fround(picture.width / across);
  const bottom = Math.fround(picture.height / down);
  const columnsFirst = pillow >= 13 && reduced.height - height > 2 * Math.max(0, reduced.width - width);
  if (columnsFirst) return filterRows(filterColumns(reduced, height, bottom), width, right);
  return filterColumns(filterRows(reduced, width, right), height, bottom);
}

/** Means of boxes of across x down pixels; those at the right and at the bottom may be smaller. */
function reduce({ width, height, channels, data }, across, down) {
  const columns = Math.ceil(width / across);
  const rows = Math.ceil(height / down);
  const result = new Uint8Array(columns * rows * channels);
  const sums = new Float64Array(columns * channels);
  for (let row = 0; row < rows; row++) {
    const last = Math.min(height, (row + 1) * down);
    sums.fill(0);
    for (let y = row * down; y < last; y++) {
      for (let x = 0, at = y * width * channels; x < width; x++) {
        const place = Math.floor(x / across) * channels;
        for (let channel = 0; channel < channels; channel++) sums[place + channel] += data[at++];
      }
    }
    for (let column = 0; column < columns; column++) {
      const count = (last - row * down) * (Math.min(width, (column + 1) * across) - column * across);
      const place = column * channels;
      for (let channel = 0; channel < channels; channel++) {
        result[(row * columns + column) * channels + channel] = divide(sums[place + channel], count);
      }
    }
  }
  return { width: columns, height: rows, channels, data: result };
}

/** sum / count, rounded as Pillow does: by a factor of 24 bits that it finds in single precision. */
function divide(sum, count) {
  const factor = Math.trunc(Math.fround(2 ** 32 / Math.fround(2 ** 8 * count)));
  return Math.floor(((sum + Math.floor(count / 2)) * factor) / 2 ** 24);
}

function bicubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * -0.5;
  return 0;
}

/**
 * For each of `wanted` pixels the first pixel that it is made from, and the whole-numbered coefficients.
 * `extent` is how many of the `size` pixels are used: the last one may be a part, since boxes may be.
 */
function makeFilters(size, extent, wanted) {
  const scale = extent / wanted;
  const stretch = Math.max(scale, 1);
  const filters = [];
  for (let place = 0; place < wanted; place++) {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - SUPPORT * stretch + 0.5));
    const end = Math.min(size, Math.trunc(center + SUPPORT * stretch + 0.5));
    const weights = [];
    let sum = 0;
    for (let at = 0; at < end - first; at++) {
      const weight = bicubic((at + first - center + 0.5) * (1 / stretch));
      weights.push(weight);
      sum += weight;
    }
    const coefficients = weights.map((weight) => {
      const share = (sum === 0 ? weight : weight / sum) * 2 ** PRECISION;
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    filters.push({ first, coefficients: Int32Array.from(coefficients) });
  }
  return filters;
}

/** The filtered value at `place`, of pixels `stride` apart. */
function filterAt(data, place, stride, coefficients) {
  let sum = 1 << (PRECISION - 1);
  for (let at = 0; at < coefficients.length; at++) sum += data[place + at * stride] * coefficients[at];
  return Math.min(255, Math.max(0, sum >> PRECISION));
}

function filterRows(picture, wanted, extent) {
  const { width, height, channels, data } = picture;
  if (width === wanted && extent === wanted) return picture;
  const filters = makeFilters(width, extent, wanted);
  const result = new Uint8Array(wanted * height * channels);
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (const { first, coefficients } of filters) {
      const place = (y * width + first) * channels;
      for (let channel = 0; channel < channels; channel++) {
        result[at++] = filterAt(data, place + channel, channels, coefficients);
      }
    }
  }
  return { width: wanted, height, channels, data: result };
}

function filterColumns(picture, wanted, extent) {
  const { width, height, channels, data } = picture;
  if (height === wanted && extent === wanted) return picture;
  const stride = width * channels;
  const result = new Uint8Array(stride * wanted);
  let at = 0;
  for (const { first, coefficients } of makeFilters(height, extent, wanted)) {
    for (let x = 0; x < stride; x++) result[at++] = filterAt(data, first * stride + x, stride, coefficients);
  }
  return { width, height: wanted, channels, data: result };
}
