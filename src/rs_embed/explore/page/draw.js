// Everything that is drawn on the map and on the projection.

const mapCanvas = document.getElementById("map");
const view = new View(mapCanvas, boundsOf(layers));
const pictures = told.pictures.map((one) => {
  const image = new Image();
  image.onload = () => requestDraw();
  image.src = one.source;
  return { ...one, image };
});
let projection = null; // the view of the projection, of points only
let lasso = null; // pixels of the ring that is being drawn
let drawAsked = false;

function boundsOf(all) {
  const side = (k, choose) => choose(...all.map((layer) => layer.edges[k]));
  return [side(0, Math.min), side(1, Math.min), side(2, Math.max), side(3, Math.max)];
}

function requestDraw() {
  if (drawAsked) return;
  drawAsked = true;
  requestAnimationFrame(() => {
    drawAsked = false;
    draw();
  });
}

function draw() {
  considerDetail();
  const { context, width, height } = view;
  context.clearRect(0, 0, width, height);
  const layer = shownLayer();
  const beside = layers[state.beside];
  drawLayer(layer);
  const difference = differenceIn(layer);
  if (difference) {
    const { values, low, high, ramp } = difference;
    difference.image ??= imageOf(layer.width, layer.height, rampPainter(values, low, high, -Infinity, ramp));
    view.drawImage(difference.image, layer.edges, state.opacity);
  } else if (beside) {
    const split = state.swipe * width;
    context.save();
    context.beginPath();
    context.rect(split, 0, width - split, height);
    context.clip();
    context.clearRect(split, 0, width - split, height);
    drawLayer(beside);
    context.restore();
    drawSplit(split, layer, beside);
  }
  drawMarks(layer);
  drawLasso(context);
  drawScale();
  if (projection) drawProjection(layer);
}

function drawLayer(layer) {
  if (state.base === "tiles") drawTiles();
  if (!isGrid) return drawPoints(view, layer, layer.xs, layer.ys);
  if (!layer.of) return drawGrid(layer);
  const [[left, top], [right, bottom]] = [view.toScreen(layer.edges[0], layer.edges[3]), view.toScreen(layer.edges[2], layer.edges[1])];
  for (const one of [layer.of, layer]) { // the whole around the part, then the part
    const { context, width, height } = view;
    context.save();
    context.beginPath();
    if (one === layer.of) context.rect(0, 0, width, height);
    context.rect(left, top, right - left, bottom - top);
    context.clip("evenodd");
    drawGrid(one);
    context.restore();
  }
}

function drawGrid(layer) {
  if (state.base === "picture" && layer.picture !== null) {
    const { image, edges } = pictures[layer.picture];
    if (image.complete) view.drawImage(image, edges);
  } else if (state.base === "valid" && layer.valid) {
    view.drawImage(layer.validImage(), layer.edges);
  } else if (state.base === "pca") {
    view.drawImage(layer.componentsImage(state.components), layer.edges);
  }
  const image = overlayImage(layer);
  if (image) view.drawImage(image, layer.edges, state.opacity);
}

/** The image of similarity or classes, made anew only when what it shows has changed. */
function overlayImage(layer) {
  if (state.overlay === "similar") {
    const similar = similarityIn(layer);
    if (!similar) return null;
    if (similar.image?.share !== state.share) {
      const paint = rampPainter(similar.values, ...rangeOf(similar), floorOf(similar));
      similar.image = { share: state.share, canvas: imageOf(layer.width, layer.height, paint) };
    }
    return similar.image.canvas;
  }
  if (state.overlay === "classes") {
    const classes = classesIn(layer);
    const colours = state.classes.map(({ colour }) => colour);
    return classes && imageOf(layer.width, layer.height, classPainter(classes, colours));
  }
  return null;
}

function drawSplit(split, layer, beside) {
  const { context, height } = view;
  context.fillStyle = "#ffffff";
  context.fillRect(split - 2, 0, 4, height);
  context.fillStyle = "#000000";
  context.fillRect(split - 0.5, 0, 1, height);
  context.font = "600 13px system-ui, sans-serif";
  const [left, right] = titlesOf(layer, beside);
  outlined(context, left, split - 10 - context.measureText(left).width, 64);
  outlined(context, right, split + 10, 64);
}

/** Text that stays readable on any ground. */
function outlined(context, text, x, y) {
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = "rgba(0, 0, 0, 0.75)";
  context.strokeText(text, x, y);
  context.fillStyle = "#ffffff";
  context.fillText(text, x, y);
}

/** Colour of a point, or null where it has none. */
function pointColours(layer) {
  const similar = state.colour === "similar" && similarityIn(layer);
  if (similar) {
    const [floor, range] = [floorOf(similar), rangeOf(similar)];
    return (i) => (similar.values[i] >= floor ? rampColour(similar.values[i], ...range) : null);
  }
  const classes = state.colour === "classes" && classesIn(layer);
  if (classes) return (i) => (classes[i] ? state.classes[classes[i] - 1].colour : null);
  if (state.colour.startsWith("column ")) {
    const scale = columnScale(layer.columns[Number(state.colour.slice(7))]);
    return (i) => scale.colour(i);
  }
  return (i) => `rgb(${layer.componentColour(i, state.components)})`;
}

/** How a column becomes colours: numbers by the ramp, texts by the seven most frequent. */
function columnScale(column) {
  if (column.scale) return column.scale;
  if (column.kind === "number") {
    const sorted = Float32Array.from(column.values.filter((value) => value !== null)).sort();
    const [low, high] = [sorted[0], sorted[sorted.length - 1]];
    column.scale = { low, high, colour: (i) => (column.values[i] === null ? null : rampColour(column.values[i], low, high)) };
  } else {
    const counts = new Map();
    for (const value of column.values) if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
    const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, 7);
    const colours = new Map(names.map((name, n) => [name, CLASS_COLOURS[n]]));
    column.scale = { names, colours, colour: (i) => colours.get(column.values[i]) ?? (column.values[i] === null ? null : CLASS_COLOURS[7]) };
  }
  return column.scale;
}

function drawPoints(where, layer, xs, ys) {
  const { context } = where;
  const colour = pointColours(layer);
  const radius = xs.length > 5000 ? 3 : xs.length > 500 ? 4 : 6;
  const order = [...xs.keys()].map((i) => [i, colour(i)]).sort((a, b) => Boolean(a[1]) - Boolean(b[1]));
  context.lineWidth = 1;
  for (const [i, fill] of order) {
    if (!layer.vectors.has(i)) continue;
    const [px, py] = where.toScreen(xs[i], ys[i]);
    const chosen = state.selection?.has(i);
    context.globalAlpha = fill && (!state.selection || chosen) ? 1 : 0.3;
    context.beginPath();
    context.arc(px, py, radius, 0, 2 * Math.PI);
    context.fillStyle = fill ?? "#888888";
    context.fill();
    context.strokeStyle = chosen ? "#ffffff" : "rgba(0, 0, 0, 0.55)";
    context.stroke();
  }
  context.globalAlpha = 1;
}

function drawProjection(layer) {
  const { context, width, height } = projection;
  context.clearRect(0, 0, width, height);
  const xs = layer.projection.filter((_, k) => k % 2 === 0);
  const ys = layer.projection.filter((_, k) => k % 2 === 1);
  drawPoints(projection, layer, xs, ys);
  for (const { items, sign } of state.examples) if (items.length === 1) drawSign(projection, xs[items[0]], ys[items[0]], sign);
  if (projection.lasso) drawRing(context, projection.lasso);
}

/** A ring with + or −: the sign says it, not only the colour. */
function drawSign(where, x, y, sign) {
  const { context } = where;
  const [px, py] = where.toScreen(x, y);
  for (const [width, style] of [[5, "rgba(0, 0, 0, 0.8)"], [2.5, sign > 0 ? "#ffffff" : "#ff8a65"]]) {
    context.lineWidth = width;
    context.strokeStyle = style;
    context.beginPath();
    context.arc(px, py, 9, 0, 2 * Math.PI);
    context.moveTo(px - 5, py);
    context.lineTo(px + 5, py);
    if (sign > 0) {
      context.moveTo(px, py - 5);
      context.lineTo(px, py + 5);
    }
    context.stroke();
  }
}

function drawMarks(layer) {
  const { context } = view;
  for (const one of state.examples) {
    if (one.ring) drawRing(context, one.ring.map(([x, y]) => view.toScreen(x, y)), one.sign);
    else if (one.items.length === 1) drawSign(view, one.x, one.y, one.sign);
  }
  for (const { x, y, number } of state.labels) {
    const [px, py] = view.toScreen(x, y);
    context.beginPath();
    context.arc(px, py, 5, 0, 2 * Math.PI);
    context.fillStyle = state.classes[number].colour;
    context.strokeStyle = "#000000";
    context.lineWidth = 2;
    context.stroke();
    context.fill();
  }
  if (state.cross !== null && isGrid && document.activeElement === mapCanvas) {
    const [x, y] = layer.centre(state.cross);
    const [px, py] = view.toScreen(x, y);
    const half = Math.max(6, (layer.cell[0] * view.scale) / 2);
    for (const [width, style] of [[5, "#000000"], [2, "#ffffff"]]) {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.strokeRect(px - half, py - half, 2 * half, 2 * half);
    }
  }
}

function drawRing(context, ring, sign = 1) {
  context.beginPath();
  ring.forEach(([px, py], n) => (n ? context.lineTo(px, py) : context.moveTo(px, py)));
  context.closePath();
  for (const [width, style] of [[4, "rgba(0, 0, 0, 0.8)"], [2, sign > 0 ? "#ffffff" : "#ff8a65"]]) {
    context.lineWidth = width;
    context.strokeStyle = style;
    context.stroke();
  }
}

function drawLasso(context) {
  if (lasso) drawRing(context, lasso);
}

/** A scale bar, and an arrow to true north, for the middle of the view. */
function drawScale() {
  const here = places.at(view.x, view.y);
  if (!here) return;
  const { context, height } = view;
  const perPixel = here.metresPerUnit / view.scale;
  const metres = roundLength(Math.min(160, view.width / 3) * perPixel);
  const length = metres / perPixel;
  const [left, base] = [58, height - (get("swipe").hidden ? 14 : 34)];
  context.font = "600 12px system-ui, sans-serif";
  for (const [width, style] of [[6, "rgba(0, 0, 0, 0.75)"], [2.5, "#ffffff"]]) {
    context.lineWidth = width;
    context.strokeStyle = style;
    context.lineJoin = "round";
    context.beginPath();
    context.moveTo(left, base - 6);
    context.lineTo(left, base);
    context.lineTo(left + length, base);
    context.lineTo(left + length, base - 6);
    const [nx, ny] = [here.north[0], -here.north[1]];
    const [px, py] = [26, base - 8];
    context.moveTo(px - 12 * nx, py - 12 * ny);
    context.lineTo(px + 12 * nx, py + 12 * ny);
    context.moveTo(px + 12 * nx - 6 * nx + 5 * ny, py + 12 * ny - 6 * ny - 5 * nx);
    context.lineTo(px + 12 * nx, py + 12 * ny);
    context.lineTo(px + 12 * nx - 6 * nx - 5 * ny, py + 12 * ny - 6 * ny + 5 * nx);
    context.stroke();
  }
  outlined(context, lengthText(metres), left + 6, base - 6);
  outlined(context, "N", 22, base - 26);
}
