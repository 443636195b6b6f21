// A map view on a canvas: x to the east and y to the north, in the units of the grid's own CRS. Places are exact: a pixel
// of the screen is a linear function of x and y.

class View {
  constructor(canvas, bounds) {
    this.canvas = canvas;
    this.bounds = bounds; // left, bottom, right, top
    this.resize();
    this.fit();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.canvas.getBoundingClientRect();
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  fit() {
    const [left, bottom, right, top] = this.bounds;
    this.x = (left + right) / 2;
    this.y = (bottom + top) / 2;
    this.whole = 0.94 * Math.min(this.width / (right - left), this.height / (top - bottom));
    this.scale = this.whole; // pixels of the screen for one unit of the CRS
  }

  toScreen(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, (this.y - y) * this.scale + this.height / 2];
  }

  toWorld(px, py) {
    return [(px - this.width / 2) / this.scale + this.x, this.y - (py - this.height / 2) / this.scale];
  }

  pan(dx, dy) {
    this.x -= dx / this.scale;
    this.y += dy / this.scale;
    const [left, bottom, right, top] = this.bounds; // the middle of the view stays on the map
    this.x = Math.max(left, Math.min(right, this.x));
    this.y = Math.max(bottom, Math.min(top, this.y));
  }

  /** Zoom by a factor so that the place under a pixel stays there. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.toWorld(px, py);
    this.scale = Math.max(this.whole * 0.5, Math.min(this.whole * 400, this.scale * factor));
    const [nowX, nowY] = this.toWorld(px, py);
    this.x += x - nowX;
    this.y += y - nowY;
    this.pan(0, 0);
  }

  /** Show a place in the middle, with `size` units of the CRS from side to side. */
  show(x, y, size) {
    this.x = x;
    this.y = y;
    this.scale = Math.max(this.scale, Math.min(this.width, this.height) / size);
    this.pan(0, 0);
  }

  /** Draw an image over edges (left, bottom, right, top) without smoothing, so that cells stay cells. */
  drawImage(image, edges, alpha = 1) {
    const [left, top] = this.toScreen(edges[0], edges[3]);
    const [right, bottom] = this.toScreen(edges[2], edges[1]);
    this.context.imageSmoothingEnabled = (right - left) / image.width < 1; // only when it is made smaller
    this.context.globalAlpha = alpha;
    this.context.drawImage(image, left, top, right - left, bottom - top);
    this.context.globalAlpha = 1;
  }
}

/**
 * Pointer, wheel and touch on a view. `on.tap(px, py, event)`, `on.stroke(points, event, finished)` when `on.draws(event)`,
 * `on.hover(px, py)`, `on.change()`.
 */
function listen(view, on) {
  const { canvas } = view;
  const pointers = new Map();
  let stroke = null;
  let moved = 0;
  let apart = 0;

  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const distance = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, placeOf(event));
    moved = pointers.size > 1 ? Infinity : 0;
    if (pointers.size === 2) apart = distance();
    const pans = event.button !== 0 || pointers.size > 1;
    stroke = !pans && on.draws(event) ? [placeOf(event)] : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = placeOf(event);
    on.hover(...now);
    const before = pointers.get(event.pointerId);
    if (!before) return;
    pointers.set(event.pointerId, now);
    moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const wide = distance();
      view.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      view.zoom(wide / Math.max(apart, 1), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      apart = wide;
    } else if (stroke) {
      stroke.push(now);
      on.stroke(stroke, event, false);
    } else if (moved > 4) {
      view.pan(now[0] - before[0], now[1] - before[1]);
    }
    on.change();
  });
  const end = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    const still = moved <= 4;
    if (stroke && !still) on.stroke(stroke, event, true);
    else if (still && event.type === "pointerup") on.tap(...placeOf(event), event);
    stroke = null;
    on.change();
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => on.hover(null, null));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      view.zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 120), ...placeOf(event));
      on.change();
    },
    { passive: false },
  );
  new ResizeObserver(() => {
    const atHome = view.scale === view.whole;
    view.resize();
    if (atHome) view.fit();
    on.change();
  }).observe(canvas);
}

/** Whether a point lies inside a ring of points (even-odd rule). */
function isInside(ring, x, y) {
  let inside = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [xi, yi] = ring[i];
    const [xj, yj] = ring[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/** A round length for a scale bar of at most `most` metres. */
function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map((lead) => lead * power).find((length) => length <= most);
}
