// What is shown: a grid of tokens, or points with a vector each. Both answer the same questions about items (tokens or
// points): which one is at a place, where an item lies, which ones lie inside a ring.

class Layer {
  constructor(told) {
    Object.assign(this, { name: told.name, when: told.when, space: told.space, facts: told.facts });
    Object.assign(this, { warning: told.warning, dim: told.dim, stored: told.stored, shares: told.shares });
    const nodata = told.nodata && decodeBlob(told.nodata);
    const { scale, offset } = told;
    this.vectors = new Vectors(decodeBlob(told.tokens), told.dim, scale, offset, nodata);
    this.components = told.components && decodeBlob(told.components); // count x K, 0 to 255
  }

  get title() {
    return [this.name, this.when].filter(Boolean).join(" · ");
  }

  /** The mean vector of some items; null where none has a value. */
  mean(items) {
    const found = items.filter((i) => this.vectors.has(i)).map((i) => this.vectors.vector(i));
    return found.length ? meanOf(found) : null;
  }

  /** Red, green and blue of an item: three principal components. */
  componentColour(i, chosen) {
    const wide = this.shares.length;
    return chosen.map((k) => (k < wide ? this.components[i * wide + k] : 0));
  }
}

class GridLayer extends Layer {
  constructor(told) {
    super(told);
    const [left, top, east, south] = told.transform;
    const [height, width] = told.shape;
    Object.assign(this, { height, width, left, top, cell: [east, south] });
    this.edges = [left, top - height * south, left + width * east, top];
    this.valid = told.valid && decodeBlob(told.valid); // share of valid pixels, 0 to 255
    this.picture = told.picture; // number of the true-colour picture, or null
    this.pictures = new Map(); // drawn once
  }

  itemAt(x, y) {
    const column = Math.floor((x - this.left) / this.cell[0]);
    const row = Math.floor((this.top - y) / this.cell[1]);
    const inside = column >= 0 && row >= 0 && column < this.width && row < this.height;
    return inside ? row * this.width + column : -1;
  }

  centre(i) {
    const [row, column] = [Math.floor(i / this.width), i % this.width];
    return [this.left + (column + 0.5) * this.cell[0], this.top - (row + 0.5) * this.cell[1]];
  }

  /** The item that a label of a file is about. */
  itemOf(x, y) {
    return this.itemAt(x, y);
  }

  itemsIn(ring) {
    const found = [];
    for (let i = 0; i < this.vectors.count; i++) if (isInside(ring, ...this.centre(i))) found.push(i);
    return found;
  }

  textOf(i) {
    return `row ${Math.floor(i / this.width)}, column ${i % this.width}`;
  }

  /** Whether a number of this layer stands for the same cell in another. */
  isOnGridOf(other) {
    const same = this.width === other.width && this.height === other.height;
    return same && this.edges.every((edge, k) => Math.abs(edge - other.edges[k]) < 1e-6 * this.cell[0]);
  }

  once(key, make) {
    if (!this.pictures.has(key)) this.pictures.set(key, make());
    return this.pictures.get(key);
  }

  componentsImage(chosen) {
    return this.once(`pca ${chosen}`, () =>
      imageOf(this.width, this.height, (i, rgba, at) => {
        if (!this.vectors.has(i)) return;
        rgba.set(this.componentColour(i, chosen), at);
        rgba[at + 3] = 255;
      }),
    );
  }

  validImage() {
    return this.once("valid", () => imageOf(this.width, this.height, rampPainter(this.valid, 0, 255, 0)));
  }
}

/** A part of a layer with smaller cells. What is counted over all vectors is that of the whole. */
class DetailLayer extends GridLayer {
  constructor(told, whole, level, box) {
    super(told);
    Object.assign(this, { of: whole, level, box, picture: whole.picture });
    this.vectors.takeStatistics(whole.vectors);
  }
}

class PointsLayer extends Layer {
  static REACH = 1e-5; // degrees

  constructor(told) {
    super(told);
    this.xs = decodeBlob(told.x);
    this.ys = decodeBlob(told.y);
    this.projection = decodeBlob(told.projection); // count x 2, -1 to 1
    this.projected = told.projected; // how they came there
    this.ids = told.ids;
    this.columns = told.columns; // {name, kind: "number" | "text", values}
    this.valid = null;
    const range = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const [[left, right], [bottom, top]] = [range(this.xs), range(this.ys)];
    const room = 0.05 * Math.max(right - left, top - bottom) || 0.005;
    this.edges = [left - room, bottom - room, right + room, top + room];
  }

  /** The nearest point within `reach`, in units of x. */
  itemAt(x, y, reach) {
    return nearestOf(this.xs, this.ys, x, y, reach);
  }

  /** The item that a label of a file is about: within about a metre, and of several there the one with its id. */
  itemOf(x, y, id) {
    const named = this.ids.indexOf(String(id));
    const isThere = named >= 0 && Math.hypot(this.xs[named] - x, this.ys[named] - y) <= PointsLayer.REACH;
    return isThere ? named : this.itemAt(x, y, PointsLayer.REACH);
  }

  centre(i) {
    return [this.xs[i], this.ys[i]];
  }

  itemsIn(ring) {
    const found = [];
    for (let i = 0; i < this.vectors.count; i++) if (isInside(ring, this.xs[i], this.ys[i])) found.push(i);
    return found;
  }

  textOf(i) {
    return this.ids[i];
  }

  isOnGridOf(other) {
    return this === other;
  }
}

function nearestOf(xs, ys, x, y, reach) {
  let best = -1;
  let least = reach * reach;
  for (let i = 0; i < xs.length; i++) {
    const square = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
    if (square <= least) [best, least] = [i, square];
  }
  return best;
}
