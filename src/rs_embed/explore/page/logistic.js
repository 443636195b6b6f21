// Logistic regression on labels, in plain JavaScript.

/**
 * Fit a multinomial logistic regression: the weights W and intercepts b that minimise
 * sum over rows of -log softmax(W x + b)[class] + |W|^2 / 2. That is scikit-learn's LogisticRegression(C=1) for three or
 * more classes. Newton's method, each step by conjugate gradients, which need no matrix of second derivatives.
 *
 * @param rows Float64Array each, all of one length, with 1 as the last number: its weight is the intercept.
 * @param classes number of the class of each row, from 0.
 * @param count number of classes.
 * @returns Float64Array of the weights of each class, one class after the other.
 */
function fitLogistic(rows, classes, count) {
  const wide = rows[0].length;
  const numbers = [...Array(count).keys()];
  const scores = (weights) => rows.map((row) => numbers.map((k) => dot(row, weights.subarray(k * wide, (k + 1) * wide))));
  const logSum = (row) => {
    const top = Math.max(...row);
    return top + Math.log(row.reduce((sum, score) => sum + Math.exp(score - top), 0));
  };
  const penalised = (weights) => weights.map((value, at) => (at % wide === wide - 1 ? 0 : value));
  const loss = (weights) =>
    scores(weights).reduce((sum, row, i) => sum + logSum(row) - row[classes[i]], dot(weights, penalised(weights)) / 2);
  /** Sum of the rows, times what each has for a class, with the penalty on the weights. */
  const gathered = (parts, weights) => {
    const out = penalised(weights);
    parts.forEach((part, i) => {
      for (let k = 0, at = 0; k < count; k++) for (let d = 0; d < wide; d++, at++) out[at] += part[k] * rows[i][d];
    });
    return out;
  };

  let weights = new Float64Array(count * wide);
  for (let step = 0; step < 50; step++) {
    const shares = scores(weights).map((row) => {
      const all = logSum(row);
      return row.map((score) => Math.exp(score - all));
    });
    const gradient = gathered(shares.map((row, i) => row.map((share, k) => share - (k === classes[i]))), weights);
    const length = Math.sqrt(dot(gradient, gradient));
    if (length < 1e-6) break;
    const curved = (direction) => {
      const parts = scores(direction).map((row, i) => {
        const mean = dot(row, shares[i]);
        return row.map((score, k) => shares[i][k] * (score - mean));
      });
      return gathered(parts, direction);
    };
    const direction = solved(curved, gradient.map((value) => -value), Math.min(0.1, Math.sqrt(length)) * length);
    const [before, slope] = [loss(weights), dot(gradient, direction)];
    let size = 1;
    const moved = () => weights.map((value, at) => value + size * direction[at]);
    while (size > 1e-6 && loss(moved()) > before + 1e-4 * size * slope) size /= 2;
    weights = moved();
  }
  return weights;
}

/** Solve product(x) = target by conjugate gradients, up to a remainder of this length. */
function solved(product, target, within) {
  const x = new Float64Array(target.length);
  const rest = target.slice();
  let direction = target.slice();
  let square = dot(rest, rest);
  for (let step = 0; step < 250 && Math.sqrt(square) > within; step++) {
    const turned = product(direction);
    const size = square / dot(direction, turned);
    for (let at = 0; at < x.length; at++) {
      x[at] += size * direction[at];
      rest[at] -= size * turned[at];
    }
    const next = dot(rest, rest);
    direction = rest.map((value, at) => value + (next / square) * direction[at]);
    square = next;
  }
  return x;
}

/**
 * Classes of all vectors by a logistic regression on some: `marks` are {vector, number}. The vectors are standardised with
 * the mean and the standard deviation of all, so that what a dimension is measured in plays no part.
 *
 * @returns {numbers, weights, classes}: the classes that have labels, their weights in standardised units (see
 *   `fitLogistic`), and class + 1 of every vector, 0 where there is no value.
 */
function logisticClasses(vectors, marks) {
  const numbers = [...new Set(marks.map(({ number }) => number))].sort((a, b) => a - b);
  const { mean, deviation, dim } = vectors;
  const rows = marks.map(({ vector }) => Float64Array.from([...vector.map((value, d) => (value - mean[d]) / deviation[d]), 1]));
  const weights = fitLogistic(rows, marks.map(({ number }) => numbers.indexOf(number)), numbers.length);
  const classes = new Uint8Array(vectors.count);
  const best = new Float64Array(vectors.count).fill(-Infinity);
  numbers.forEach((number, k) => {
    const own = weights.subarray(k * (dim + 1), (k + 1) * (dim + 1));
    const perUnit = deviation.map((value, d) => own[d] / value);
    const base = own[dim] - dot(mean, perUnit);
    vectors.dots(perUnit).forEach((product, i) => {
      if (!vectors.has(i) || product + base <= best[i]) return;
      best[i] = product + base;
      classes[i] = number + 1;
    });
  });
  return { numbers, weights, classes };
}
