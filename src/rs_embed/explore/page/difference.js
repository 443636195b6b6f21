// The difference between two results that are compared: of their vectors, or of what they find similar.

const differenceNames = { change: "Change: 1 − cosine", ranks: "Difference of similarity" };

/** The difference that the overlay shows: {values, low, high, ramp, digits, text}; null where there is none. */
function differenceIn(layer) {
  const beside = layers[state.beside];
  if (!beside) return null;
  return state.overlay === "change" ? changeBetween(layer, beside) : state.overlay === "ranks" ? ranksBetween(layer, beside) : null;
}

/** What tells two layers apart: their models or their times. */
function titlesOf(one, other) {
  if (one.name !== other.name) return [one.name, other.name];
  return one.when !== other.when ? [one.when, other.when] : [one.title, other.title];
}

/** Whether a kind of difference can be shown at all. */
function canDiffer(kind, layer, beside) {
  if (!beside || beside === layer) return false;
  return kind === "ranks" || (layer.space === beside.space && layer.isOnGridOf(beside));
}

/** 1 - cosine of every cell of two layers on one grid, of one model; null where they cannot be compared. */
function changeBetween(one, other) {
  if (!canDiffer("change", one, other)) return null;
  one.changes ??= new Map();
  if (!one.changes.has(other)) {
    const values = new Float32Array(one.vectors.count).fill(NaN);
    const a = new Float64Array(one.dim);
    const b = new Float64Array(one.dim);
    for (let i = 0; i < values.length; i++) {
      if (!one.vectors.has(i) || !other.vectors.has(i)) continue;
      const product = dot(one.vectors.read(i, a), other.vectors.read(i, b));
      values[i] = 1 - product / Math.sqrt(one.vectors.squares[i] * other.vectors.squares[i]);
    }
    const text = `1 − cosine between the vectors of ${titlesOf(one, other).join(" and ")} at each place. 0 is no change.`;
    one.changes.set(other, { values, low: 0, high: quantile(sortedFinite(values), 0.99), ramp: RAMP, digits: 3, text });
  }
  return one.changes.get(other);
}

/**
 * How much higher a layer ranks each of its cells by similarity to the examples than another does, from -1 to 1. The rank of a
 * cell is the share of cells that are at most as similar. Ranks, because the cosines of two models are not on one scale. They
 * count cells that have a value in both; the other's cell is the one around the middle of the layer's. Null without examples.
 */
function ranksBetween(one, other) {
  const [mine, theirs] = [similarityIn(one), similarityIn(other)];
  if (!mine || !theirs || one === other) return null;
  if (one.ranks?.mine !== mine || one.ranks.theirs !== theirs) {
    const cellThere = (i) => other.itemAt(...one.centre(i));
    const pairs = [...mine.values.keys()].map((i) => [i, cellThere(i)]);
    const both = pairs.filter(([i, j]) => j >= 0 && !Number.isNaN(mine.values[i]) && !Number.isNaN(theirs.values[j]));
    const a = shareBelow(both.map(([i]) => mine.values[i]));
    const b = shareBelow(both.map(([, j]) => theirs.values[j]));
    const values = new Float32Array(one.vectors.count).fill(NaN);
    both.forEach(([i], n) => (values[i] = a[n] - b[n]));
    const most = quantile(sortedFinite(values.map(Math.abs)), 0.99) || 1;
    const [name, otherName] = titlesOf(one, other);
    const text =
      `Orange: ${name} finds the place more like your examples than ${otherName} does. Blue: less. ` +
      "The number is the difference of the ranks that both give the place, as a share of all places.";
    one.ranks = { mine, theirs, values, low: -most, high: most, ramp: TWO_SIDED, digits: 2, text };
  }
  return one.ranks;
}

/** For each value, the share of all values that are at most as large. */
function shareBelow(values) {
  const sorted = Float32Array.from(values).sort();
  return values.map((value) => {
    let [low, high] = [0, sorted.length]; // the first that is larger lies between
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return low / sorted.length;
  });
}

function saveDifference() {
  const layer = shownLayer();
  const { values, text } = differenceIn(layer);
  const warnings = [layer, layers[state.beside]].map(({ warning }) => warning).filter(Boolean);
  const description = [text, ...new Set(warnings)].join(" ");
  download(`${state.overlay}.tif`, [geoTiff(values, layer, told.crs, { nodata: "nan", description })], "image/tiff");
}
