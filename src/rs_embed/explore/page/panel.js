// The panel beside the map: examples, the most similar places, classes, the legend. All text is set as text, never as HTML.

const get = (id) => document.getElementById(id);
const tool = () => document.querySelector("input[name=tool]:checked").value;
const TOP = 12;

/** An element with properties and children; strings become text. */
function element(kind, properties = {}, ...children) {
  const node = Object.assign(document.createElement(kind), properties);
  node.append(...children);
  return node;
}

function fillSelect(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => element("option", { value: key, textContent: text })));
  select.value = value;
}

function showFound() {
  const layer = shownLayer();
  const similar = similarityIn(layer);
  if (state.examples.length || state.labels.length) get("hint").hidden = true;
  get("clear-examples").disabled = !state.examples.length;
  get("save-similar").disabled = !similar || !isGrid;
  get("examples").replaceChildren(
    ...state.examples.map((one) => {
      const what = one.items.length > 1 ? `mean of ${one.items.length}` : one.layer.textOf(one.items[0]);
      const button = element("button", { type: "button", textContent: `${one.sign > 0 ? "+" : "−"} ${what} ✕` });
      button.setAttribute("aria-label", `Remove the example: ${one.sign > 0 ? "like" : "unlike"} ${what}`);
      button.addEventListener("click", () => {
        state.examples.splice(state.examples.indexOf(one), 1);
        examplesChanged();
      });
      return element("li", {}, button);
    }),
  );
  showShare(layer, similar);
  showLegend(layer, similar);
  get("best").replaceChildren(...bestItems(layer, TOP).map((item) => bestEntry(layer, item, similar.values[item])));
  if (!isGrid) showTable();
}

function showShare(layer, similar) {
  if (!similar) return void (get("share-text").textContent = "");
  const parts = [`${(100 * state.share).toFixed(state.share < 0.1 ? 1 : 0)} %`];
  if (state.share < 1) parts.push(`similarity ≥ ${floorOf(similar).toFixed(3)}`);
  const whole = layer.of ?? layer;
  const here = isGrid && places.at(...whole.centre(Math.floor(whole.vectors.count / 2)));
  if (here) {
    const cell = whole.cell[0] * whole.cell[1] * here.metresPerUnit ** 2;
    if (!told.crs.geographic) parts.push(areaText(state.share * similar.sorted.length * cell));
  }
  get("share-text").textContent = parts.join(" · ");
}

function showLegend(layer, similar) {
  let range = null;
  let names = null;
  const column = !isGrid && state.colour.startsWith("column ") && layer.columns[Number(state.colour.slice(7))];
  if (state.overlay === "similar" && similar) range = rangeOf(similar);
  const difference = differenceIn(layer);
  if (difference) range = [difference.low, difference.high];
  const waits = state.overlay === "ranks" && !difference;
  get("overlay-text").textContent = difference?.text ?? (waits ? "Click a place: the difference is that of its similarity." : "");
  get("save-difference").hidden = !difference;
  get("swipe").hidden = state.beside < 0 || Boolean(difference); // a difference is of both
  if (column && column.kind === "number") range = [columnScale(column).low, columnScale(column).high];
  if (column && column.kind === "text") names = [...columnScale(column).colours];
  if (state.overlay === "classes") names = state.classes.map(({ name, colour }) => [name, colour]);
  get("legend").hidden = !range && !names;
  ["legend-low", "legend-ramp", "legend-high"].forEach((id) => (get(id).hidden = !range));
  get("legend-names").replaceChildren(...(names ?? []).map(([name, colour]) => element("li", {}, swatchOf(colour), name)));
  if (!range) return;
  const digits = difference?.digits ?? (Math.max(...range.map(Math.abs)) > 100 ? 0 : 3);
  const ramp = difference?.ramp ?? RAMP;
  get("legend-low").textContent = (state.overlay === "similar" && state.share >= 1 ? "≤ " : "") + range[0].toFixed(digits);
  get("legend-high").textContent = range[1].toFixed(digits);
  const context = get("legend-ramp").getContext("2d");
  context.drawImage(imageOf(128, 1, (i, rgba, at) => rgba.set([...ramp.slice(6 * i, 6 * i + 3), 255], at)), 0, 0);
}

/** An entry of the list of the most similar: a thumbnail of the base, or the id, and the similarity. */
function bestEntry(layer, item, value) {
  const [x, y] = layer.centre(item);
  const button = element("button", { type: "button", title: isGrid ? places.text(x, y) : layer.ids[item] });
  button.setAttribute("aria-label", `Show ${isGrid ? places.text(x, y) : layer.ids[item]}, similarity ${value.toFixed(3)}`);
  if (isGrid) button.append(thumbnail(layer, x, y));
  else button.append(layer.ids[item], element("br"));
  button.append(value.toFixed(3));
  button.addEventListener("click", () => {
    view.show(x, y, isGrid ? 40 * layer.cell[0] : (layer.edges[2] - layer.edges[0]) / 4);
    state.cross = isGrid ? item : null;
    get("where").textContent = whereText(x, y, item);
    requestDraw();
  });
  return element("li", {}, button);
}

/** The base around a place: 11 cells from side to side, the middle one framed. */
function thumbnail(layer, x, y) {
  const side = 66;
  const canvas = element("canvas", { width: side, height: side });
  const context = canvas.getContext("2d");
  const picture = state.base === "picture" && layer.picture !== null ? pictures[layer.picture] : null;
  const [image, edges] = picture ? [picture.image, picture.edges] : [layer.componentsImage(state.components), layer.edges];
  const perUnit = [image.width / (edges[2] - edges[0]), image.height / (edges[3] - edges[1])];
  const size = [11 * layer.cell[0], 11 * layer.cell[1]];
  context.imageSmoothingEnabled = false;
  const from = [(x - size[0] / 2 - edges[0]) * perUnit[0], (edges[3] - y - size[1] / 2) * perUnit[1]];
  if (image.width) context.drawImage(image, ...from, size[0] * perUnit[0], size[1] * perUnit[1], 0, 0, side, side);
  context.strokeStyle = "#ffffff";
  context.lineWidth = 2;
  context.strokeRect(side / 2 - 4, side / 2 - 4, 8, 8);
  return canvas;
}

function swatchOf(colour) {
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = colour;
  return swatch;
}

function showClasses() {
  const counts = state.classes.map((_, number) => state.labels.filter((one) => one.number === number).length);
  const entry = (number, name, colour, count) => {
    const radio = element("input", { type: "radio", name: "brush", checked: state.brush === number });
    radio.addEventListener("change", () => {
      state.brush = number;
      document.querySelector("input[name=tool][value=label]").checked = true;
    });
    return element("li", {}, element("label", {}, radio, swatchOf(colour), name), element("span", { className: "count", textContent: count }));
  };
  const entries = state.classes.map(({ name, colour }, number) => entry(number, name, colour, counts[number]));
  get("classes").replaceChildren(...entries, entry(-1, "Rub out", "transparent", ""));
  get("save-labels").disabled = !state.labels.length || !places.known;
  get("load-labels").disabled = !places.known;
  get("save-classes").disabled = !state.labels.length || !isGrid;
  get("clear-labels").disabled = !state.labels.length;
}
