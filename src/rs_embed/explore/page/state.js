// What the user has said, and what follows from it: examples and their similarity, labels and their classes.

const told = JSON.parse(document.getElementById("told").textContent);
const places = new Places(told.crs);
const layers = told.layers.map((one) => (told.kind === "grid" ? new GridLayer(one) : new PointsLayer(one)));
const isGrid = told.kind === "grid";

const MOST_CLASSES = 250;
/** A class with the next colour; a free one has a name that nobody chose. */
const newClass = (name, free = false, at = state.classes.length) => ({ name, free, colour: CLASS_COLOURS[at % CLASS_COLOURS.length] });

const state = {
  shown: 0, // number of the layer
  detail: null, // a finer layer of a part of it, from a server
  beside: -1, // the layer right of the swipe, or -1
  swipe: 0.5,
  base: told.pictures.length ? "picture" : "pca",
  components: [0, 1, 2],
  colour: "", // of points: "", "similar", "classes", "pca" or "column 3"
  overlay: "none",
  opacity: 0.8,
  share: 1, // of the items, the most similar
  centred: false,
  apart: true,
  examples: [], // {sign, layer, items, ring, x, y}; a layer, not its number: details come and go
  classes: ["A", "B"].map((name, at) => newClass(name, true, at)),
  brush: 0, // class that the label tool paints; -1 rubs out
  labels: [], // {layer, item, x, y, number}
  method: "nearest", // how labels make classes; or "logistic"
  nearest: 5,
  cross: null, // the item under the keyboard's cross
  selection: null, // points inside the last lasso
};
const shownLayer = () => state.detail ?? layers[state.shown];
let labelsVersion = 0; // changes when a label is taken away, so that nearest labels are found from the start

/** What the same place is in a layer: in one of the same model its vector, in another the vector of that place there. */
function vectorFor(layer, mark) {
  if (mark.layer.space === layer.space) return mark.layer.mean(mark.items);
  return layer.mean(mark.ring ? layer.itemsIn(mark.ring) : [layer.itemAt(mark.x, mark.y, Infinity)]);
}

/** Similarity of every item of a layer to the examples: {values, sorted, low, high}, or null without examples. */
function similarityIn(layer) {
  const key = JSON.stringify([state.centred, state.examples.map(({ id }) => id)]);
  if (layer.similar?.key !== key) {
    const of = (sign) => state.examples.filter((one) => one.sign === sign).map((one) => vectorFor(layer, one)).filter(Boolean);
    const direction = directionOf(of(1), of(-1), state.centred ? layer.vectors.mean : null);
    layer.similar = { key, found: null };
    if (direction) {
      const values = layer.vectors.cosines(direction, state.centred);
      const sorted = sortedFinite(values);
      const found = { values, sorted, low: quantile(sorted, 0.02), high: sorted[sorted.length - 1] };
      // A part of a larger layer has the colours and the threshold of the whole.
      layer.similar.found = layer.of ? { ...similarityIn(layer.of), values, image: null } : found;
    }
  }
  return layer.similar.found;
}

/** The similarity that an item needs to be shown. */
function floorOf(similar) {
  return state.share >= 1 ? -Infinity : quantile(similar.sorted, 1 - state.share);
}

/** The values that the first and the last colour stand for: of all items, or of those that are shown. */
function rangeOf(similar) {
  return [state.share >= 1 ? similar.low : floorOf(similar), similar.high];
}

/** The most similar items, best first, without the examples; with `apart`, none near one that is listed already. */
function bestItems(layer, top) {
  const similar = similarityIn(layer);
  if (!similar) return [];
  const { values } = similar;
  const here = (one) => (isGrid && one.layer !== layer && one.items.length === 1 ? [layer.itemAt(one.x, one.y)] : []);
  const taken = new Set(state.examples.flatMap((one) => (one.layer === layer ? one.items : here(one))));
  const order = [...values.keys()].filter((i) => !Number.isNaN(values[i]) && !taken.has(i));
  order.sort((a, b) => values[b] - values[a] || a - b);
  if (!isGrid || !state.apart) return order.slice(0, top);
  const reach = Math.max(2, Math.round(Math.max(layer.width, layer.height) / 20));
  const cells = (i) => [Math.floor(i / layer.width), i % layer.width];
  const near = [...taken].map(cells);
  const found = [];
  for (const i of order) {
    const [row, column] = cells(i);
    if (near.some(([r, c]) => Math.abs(r - row) < reach && Math.abs(c - column) < reach)) continue;
    found.push(i);
    near.push([row, column]);
    if (found.length === top) break;
  }
  return found;
}

/** Class + 1 of every item by the chosen method; null without labels. */
function classesIn(layer) {
  if (!state.labels.length) return null;
  return state.method === "logistic" ? logisticIn(layer).classes : nearestIn(layer);
}

/** See `logisticClasses`. */
function logisticIn(layer) {
  const version = `${labelsVersion} ${state.labels.length}`;
  if (layer.logistic?.version !== version) {
    const marks = state.labels.map((label) => ({ vector: vectorFor(layer, label), number: label.number }));
    const found = marks.filter(({ vector }) => vector);
    const nothing = { classes: new Uint8Array(layer.vectors.count) };
    layer.logistic = { version, ...(found.length ? logisticClasses(layer.vectors, found) : nothing) };
  }
  return layer.logistic;
}

function nearestIn(layer) {
  layer.nearest ??= { finder: new NearestLabels(layer.vectors), version: -1, done: 0 };
  const { nearest } = layer;
  if (nearest.version !== labelsVersion) {
    nearest.finder.clear();
    Object.assign(nearest, { version: labelsVersion, done: 0, classes: null });
  }
  for (; nearest.done < state.labels.length; nearest.done++) {
    const label = state.labels[nearest.done];
    const vector = vectorFor(layer, label);
    if (vector) nearest.finder.add(vector, label.number);
    nearest.classes = null;
  }
  if (!nearest.classes || nearest.k !== state.nearest) {
    Object.assign(nearest, { classes: nearest.finder.classify(state.nearest), k: state.nearest });
  }
  return nearest.classes;
}
