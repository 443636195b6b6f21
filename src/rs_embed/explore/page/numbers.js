// The maths of the page: vectors of a layer, cosine similarity, nearest labels. Nothing here touches the document.

/** Decode base64 text, its own or that of the element blob-N, into a typed array. */
function decodeBlob(blob) {
  const text = atob(blob.text ?? document.getElementById(`blob-${blob.id}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const kinds = { int8: Int8Array, uint8: Uint8Array, float32: Float32Array, float64: Float64Array };
  return new kinds[blob.dtype](bytes.buffer);
}

/** The mean of some vectors, each a Float64Array. */
function meanOf(vectors) {
  const mean = new Float64Array(vectors[0].length);
  for (const vector of vectors) for (let d = 0; d < mean.length; d++) mean[d] += vector[d] / vectors.length;
  return mean;
}

function dot(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
  return sum;
}

/** A vector of length 1 in the same direction; null if it has none. */
function unitOf(vector) {
  const length = Math.sqrt(dot(vector, vector));
  return length > 0 ? vector.map((value) => value / length) : null;
}

/**
 * The vectors of a grid or of points: count x dim numbers, stored as float32, or as int8 with
 * value = offset[d] + scale[d] * stored. A product with all of them never restores the values:
 * offset . v + sum over d of stored[d] * (scale[d] * v[d]).
 */
class Vectors {
  constructor(stored, dim, scale, offset, nodata) {
    Object.assign(this, { stored, dim, scale, offset, nodata, count: stored.length / dim });
    this.squares = new Float64Array(this.count); // |x|^2 of each
    const vector = new Float64Array(dim);
    for (let i = 0; i < this.count; i++) {
      this.read(i, vector);
      this.squares[i] = dot(vector, vector);
    }
  }

  has(i) {
    return i >= 0 && i < this.count && !(this.nodata && this.nodata[i]);
  }

  read(i, into) {
    const start = i * this.dim;
    for (let d = 0; d < this.dim; d++) {
      const value = this.stored[start + d];
      into[d] = this.scale ? this.offset[d] + this.scale[d] * value : value;
    }
    return into;
  }

  vector(i) {
    return this.read(i, new Float64Array(this.dim));
  }

  /** Use the mean and the deviation of others: these vectors are a part of them. */
  takeStatistics({ mean, deviation }) {
    Object.assign(this, { _mean: mean, _deviation: deviation });
  }

  /** The mean of all vectors that have a value. */
  get mean() {
    if (!this._mean) {
      const sum = new Float64Array(this.dim);
      const vector = new Float64Array(this.dim);
      let n = 0;
      for (let i = 0; i < this.count; i++) {
        if (!this.has(i)) continue;
        this.read(i, vector);
        n += 1;
        for (let d = 0; d < this.dim; d++) sum[d] += vector[d];
      }
      this._mean = sum.map((value) => value / Math.max(n, 1));
    }
    return this._mean;
  }

  /** The standard deviation of each dimension; 1 where it does not vary. */
  get deviation() {
    if (!this._deviation) {
      const { mean } = this;
      const squares = new Float64Array(this.dim);
      const vector = new Float64Array(this.dim);
      let n = 0;
      for (let i = 0; i < this.count; i++) {
        if (!this.has(i)) continue;
        this.read(i, vector);
        n += 1;
        for (let d = 0; d < this.dim; d++) squares[d] += (vector[d] - mean[d]) ** 2;
      }
      this._deviation = squares.map((sum) => Math.sqrt(sum / Math.max(n, 1)) || 1);
    }
    return this._deviation;
  }

  /** The product of every vector with one. */
  dots(one) {
    const { stored, dim, count } = this;
    const weights = Float64Array.from(one, (value, d) => (this.scale ? value * this.scale[d] : value));
    const base = this.offset ? dot(this.offset, one) : 0;
    const out = new Float64Array(count);
    const even = dim - (dim % 4);
    for (let i = 0, p = 0; i < count; i++) {
      let a = 0, b = 0, c = 0, e = 0, d = 0; // four sums: the processor adds them at the same time
      for (; d < even; d += 4, p += 4) {
        a += stored[p] * weights[d];
        b += stored[p + 1] * weights[d + 1];
        c += stored[p + 2] * weights[d + 2];
        e += stored[p + 3] * weights[d + 3];
      }
      for (; d < dim; d++, p++) a += stored[p] * weights[d];
      out[i] = base + a + b + c + e;
    }
    return out;
  }

  /**
   * Cosine of every vector with a direction; NaN without a value. With `centred`, of x - mean, where the
   * direction is given after subtracting the mean: (x - m) . v = x . v - m . v, |x - m|^2 = |x|^2 - 2 x . m + |m|^2.
   */
  cosines(direction, centred) {
    const out = new Float32Array(this.count);
    const dots = this.dots(direction);
    const length = Math.sqrt(dot(direction, direction));
    let squares = this.squares;
    let shift = 0;
    if (centred) {
      const mean = this.mean;
      if (!this._centred) {
        const withMean = this.dots(mean);
        const meanSquare = dot(mean, mean);
        this._centred = this.squares.map((square, i) => Math.max(0, square - 2 * withMean[i] + meanSquare));
      }
      squares = this._centred;
      shift = dot(mean, direction);
    }
    for (let i = 0; i < this.count; i++) {
      const norm = Math.sqrt(squares[i]) * length;
      const ok = norm > 0 && !(this.nodata && this.nodata[i]);
      out[i] = ok ? Math.max(-1, Math.min(1, (dots[i] - shift) / norm)) : NaN;
    }
    return out;
  }
}

/**
 * What examples look for: the mean of the vectors of `like`, each of length 1, less the mean of those of `unlike`.
 * The same rule as `EmbeddingMap.similar` in Python. Null without examples to look for.
 */
function directionOf(like, unlike, mean) {
  const units = (vectors) =>
    vectors.map((vector) => unitOf(mean ? vector.map((value, d) => value - mean[d]) : vector)).filter(Boolean);
  const wanted = units(like);
  if (!wanted.length) return null;
  const others = units(unlike);
  const direction = meanOf(wanted);
  if (others.length) {
    const away = meanOf(others);
    for (let d = 0; d < direction.length; d++) direction[d] -= away[d];
  }
  return dot(direction, direction) > 1e-14 ? direction : null;
}

/** Values in ascending order, without NaN. */
function sortedFinite(values) {
  return Float32Array.from(values.filter((value) => !Number.isNaN(value))).sort();
}

/** The value below which a share of sorted values lies. */
function quantile(sorted, share) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.max(0, Math.floor(share * sorted.length)))] : NaN;
}

/**
 * Classes by the K nearest labels (cosine), kept up to date label by label: each vector remembers the most similar
 * labels so far. The class is that of the majority of the k nearest; in a tie, of the nearest among them.
 */
class NearestLabels {
  static KEPT = 15;

  constructor(vectors) {
    this.vectors = vectors;
    this.clear();
  }

  clear() {
    const size = this.vectors.count * NearestLabels.KEPT;
    this.likeness = new Float32Array(size).fill(-2);
    this.classes = new Uint8Array(size); // 0 means none, else number of the class + 1
    this.total = 0;
  }

  add(vector, number) {
    const likeness = this.vectors.cosines(vector, false);
    const kept = NearestLabels.KEPT;
    this.total += 1;
    for (let i = 0; i < likeness.length; i++) {
      let at = (i + 1) * kept - 1;
      const first = i * kept;
      const value = likeness[i];
      if (!(value > this.likeness[at])) continue;
      for (; at > first && value > this.likeness[at - 1]; at--) {
        this.likeness[at] = this.likeness[at - 1];
        this.classes[at] = this.classes[at - 1];
      }
      this.likeness[at] = value;
      this.classes[at] = number + 1;
    }
  }

  /** Class + 1 of every vector, 0 where there is no value or no label. */
  classify(k) {
    const out = new Uint8Array(this.vectors.count);
    const votes = new Uint8Array(256);
    const most = Math.min(k, this.total, NearestLabels.KEPT);
    for (let i = 0; i < out.length; i++) {
      if (!this.vectors.has(i)) continue;
      const first = i * NearestLabels.KEPT;
      let best = 0;
      votes.fill(0);
      for (let j = 0; j < most; j++) votes[this.classes[first + j]] += 1;
      for (let j = 0; j < most; j++) {
        const one = this.classes[first + j]; // nearest first, so that a tie goes to the nearest
        if (one && (best === 0 || votes[one] > votes[best])) best = one;
      }
      out[i] = best;
    }
    return out;
  }
}
