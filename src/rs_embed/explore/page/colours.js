// Colours: maps that read the same with a colour vision deficiency, and images of numbers.

/** Eleven colours of viridis (CC0), evenly spaced; between them, colours are interpolated. */
const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"];

/** Classes of labels: the palette of Okabe and Ito, which stays distinct with a colour vision deficiency. */
const CLASS_COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#f0e442", "#999999"];

function rgbOf(hex) {
  const number = parseInt(hex.replace("#", ""), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

/** 256 x RGB of a map given by evenly spaced colours. */
function rampOf(colours) {
  const stops = colours.map(rgbOf);
  const ramp = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    for (let c = 0; c < 3; c++) {
      ramp[3 * i + c] = Math.round(stops[left][c] + (place - left) * (stops[left + 1][c] - stops[left][c]));
    }
  }
  return ramp;
}

const RAMP = rampOf(VIRIDIS);

/** For differences: below 0 blue, above 0 orange, of the same palette as classes. */
const TWO_SIDED = rampOf(["0072b2", "6fb1d8", "f4f4f4", "eea26b", "d55e00"]);

/** Place of a value on the ramp, 0 to 255. */
function step(value, low, high) {
  return Math.max(0, Math.min(255, Math.round((255 * (value - low)) / Math.max(high - low, 1e-12))));
}

function rampColour(value, low, high) {
  const at = 3 * step(value, low, high);
  return `rgb(${RAMP[at]},${RAMP[at + 1]},${RAMP[at + 2]})`;
}

/** A canvas of width x height cells, coloured by `paint(index, rgba, offset)`, which leaves a cell transparent by default. */
function imageOf(width, height, paint) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) paint(i, image.data, 4 * i);
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Paints values by a ramp; values under `floor` and NaN stay transparent. */
function rampPainter(values, low, high, floor, ramp = RAMP) {
  return (i, rgba, at) => {
    const value = values[i];
    if (!(value >= floor)) return;
    const from = 3 * step(value, low, high);
    rgba[at] = ramp[from];
    rgba[at + 1] = ramp[from + 1];
    rgba[at + 2] = ramp[from + 2];
    rgba[at + 3] = 255;
  };
}

/** Paints classes (number + 1; 0 is transparent). */
function classPainter(classes, colours) {
  const table = colours.map(rgbOf);
  return (i, rgba, at) => {
    if (!classes[i]) return;
    rgba.set(table[classes[i] - 1], at);
    rgba[at + 3] = 255;
  };
}
