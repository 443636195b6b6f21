// The controls: what each does to the state, and what they show of it. All text is set as text, never as HTML.

const get = (id) => document.getElementById(id);
const tool = () => document.querySelector("input[name=tool]:checked").value;
const TOP = 12;
let made = 0; // examples so far: each gets a number

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

// --- what changes the state -------------------------------------------------------------------------------------------

/** Add an example: an item, or the mean of several. A click on an item that is one already takes it away. */
function addExample(sign, items, x, y, ring = null) {
  const layer = layers[state.shown];
  if (!layer.mean(items)) return say("There is no value here.");
  const isItem = (one) => one.items.length === 1 && one.layer === state.shown && one.items[0] === items[0];
  const same = items.length === 1 ? state.examples.findIndex(isItem) : -1;
  if (same >= 0 && state.examples[same].sign === sign) state.examples.splice(same, 1);
  else {
    if (same >= 0) state.examples.splice(same, 1);
    state.examples.push({ id: ++made, sign, layer: state.shown, items, x, y, ring });
  }
  examplesChanged();
}

function examplesChanged() {
  const found = state.examples.length > 0;
  if (found || state.overlay === "similar") setOverlay(found ? "similar" : state.labels.length ? "classes" : "none");
  if (found && !state.examples.some((one) => one.sign > 0)) say("Add a place that you look for: + Like.");
  draw();
  requestAnimationFrame(showFound);
}

function setOverlay(name) {
  state.overlay = name;
  get("overlay").value = name;
  if (!isGrid) {
    state.colour = name === "none" ? "" : name;
    get("colour").value = state.colour;
  }
}

function addLabels(items) {
  const layer = layers[state.shown];
  for (const item of items) {
    if (!layer.vectors.has(item)) continue;
    const same = state.labels.findIndex((one) => one.layer === state.shown && one.item === item);
    if (same >= 0 && state.labels[same].number === state.brush) continue;
    if (same >= 0) {
      state.labels.splice(same, 1);
      labelsVersion += 1;
    }
    const [x, y] = layer.centre(item);
    if (state.brush >= 0) state.labels.push({ layer: state.shown, item, items: [item], x, y, number: state.brush });
  }
  labelsChanged();
}

function labelsChanged() {
  if (state.labels.length) setOverlay("classes");
  else if (state.overlay === "classes") setOverlay(state.examples.length ? "similar" : "none");
  showClasses();
  showFound();
  requestDraw();
}

// --- the map ----------------------------------------------------------------------------------------------------------

function itemUnder(px, py) {
  const [x, y] = view.toWorld(px, py);
  return layers[state.shown].itemAt(x, y, 14 / view.scale);
}

function use(item, sign) {
  const layer = layers[state.shown];
  if (item < 0) return;
  if (tool() === "label") return addLabels([item]);
  addExample(sign, [item], ...layer.centre(item));
}

listen(view, {
  tap(px, py, event) {
    const started = performance.now();
    use(itemUnder(px, py), tool() === "unlike" || event.shiftKey ? -1 : 1);
    explorer.clickMs = performance.now() - started;
  },
  draws: (event) => ["lasso", "label"].includes(tool()) && !event.ctrlKey,
  stroke(points, event, finished) {
    if (tool() === "label") return addLabels([itemUnder(...points[points.length - 1])].filter((i) => i >= 0));
    lasso = finished ? null : points;
    if (finished) useLasso(points.map(([px, py]) => view.toWorld(px, py)), event.shiftKey ? -1 : 1);
  },
  hover(px, py) {
    get("where").textContent = px === null ? "" : whereText(...view.toWorld(px, py), itemUnder(px, py));
  },
  change: requestDraw,
});

function useLasso(ring, sign) {
  const layer = layers[state.shown];
  selectItems(layer.itemsIn(ring), sign, ring);
}

function selectItems(items, sign, ring) {
  if (!items.length) return say(isGrid ? "The area holds no middle of a cell: draw it larger." : "No point lies inside.");
  if (!isGrid) state.selection = new Set(items);
  const [x, y] = layers[state.shown].centre(items[0]);
  addExample(sign, items, x, y, ring);
}

function whereText(x, y, item) {
  const layer = layers[state.shown];
  const parts = [places.text(x, y)];
  if (isGrid && told.crs) parts.push(`${x.toFixed(1)}, ${y.toFixed(1)} in ${told.crs.name}`);
  if (item >= 0) {
    parts.push(layer.textOf(item));
    if (!layer.vectors.has(item)) parts.push("no value");
    else if (layer.valid) parts.push(`${Math.round((100 * layer.valid[item]) / 255)} % valid`);
    const similar = similarityIn(layer);
    if (similar && layer.vectors.has(item)) parts.push(`similarity ${similar.values[item].toFixed(3)}`);
  }
  return parts.join(" · ");
}

mapCanvas.addEventListener("keydown", (event) => {
  const layer = layers[state.shown];
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const step = steps[event.key];
  if (step && isGrid) {
    state.cross ??= layer.itemAt(view.x, view.y);
    const row = Math.max(0, Math.min(layer.height - 1, Math.floor(state.cross / layer.width) + step[0]));
    const column = Math.max(0, Math.min(layer.width - 1, (state.cross % layer.width) + step[1]));
    state.cross = row * layer.width + column;
    get("where").textContent = whereText(...layer.centre(state.cross), state.cross);
  } else if (step) view.pan(-40 * step[1], -40 * step[0]);
  else if (event.key === "Enter" && state.cross !== null) use(state.cross, tool() === "unlike" || event.shiftKey ? -1 : 1);
  else if (event.key === "+" || event.key === "=") view.zoom(1.4);
  else if (event.key === "-") view.zoom(1 / 1.4);
  else if (event.key === "0") view.fit();
  else return;
  event.preventDefault();
  requestDraw();
});
mapCanvas.addEventListener("focus", requestDraw);
mapCanvas.addEventListener("blur", requestDraw);

for (const [id, act] of [["zoom-in", () => view.zoom(1.5)], ["zoom-out", () => view.zoom(1 / 1.5)], ["zoom-fit", () => view.fit()]]) {
  get(id).addEventListener("click", () => {
    act();
    requestDraw();
  });
}

let hintTimer = 0;
function say(text) {
  get("hint").textContent = text;
  get("hint").hidden = !text;
  clearTimeout(hintTimer);
  if (text) hintTimer = setTimeout(() => (get("hint").hidden = true), 6000);
}

// --- what is shown of the state ---------------------------------------------------------------------------------------

function showFound() {
  const layer = layers[state.shown];
  const similar = similarityIn(layer);
  if (state.examples.length || state.labels.length) get("hint").hidden = true;
  get("clear-examples").disabled = !state.examples.length;
  get("save-similar").disabled = !similar || !isGrid;
  get("examples").replaceChildren(
    ...state.examples.map((one) => {
      const what = one.items.length > 1 ? `mean of ${one.items.length}` : layers[one.layer].textOf(one.items[0]);
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
  const here = isGrid && places.at(...layer.centre(Math.floor(layer.vectors.count / 2)));
  if (here) {
    const cell = layer.cell[0] * layer.cell[1] * here.metresPerUnit ** 2;
    if (!told.crs.geographic) parts.push(areaText(state.share * similar.sorted.length * cell));
  }
  get("share-text").textContent = parts.join(" · ");
}

function showLegend(layer, similar) {
  let range = null;
  let names = null;
  const column = !isGrid && state.colour.startsWith("column ") && layer.columns[Number(state.colour.slice(7))];
  if (state.overlay === "similar" && similar) range = rangeOf(similar);
  const change = state.overlay === "change" && changeBetween(layer, layers[state.beside]);
  if (change) range = [0, change.high];
  if (column && column.kind === "number") range = [columnScale(column).low, columnScale(column).high];
  if (column && column.kind === "text") names = [...columnScale(column).colours];
  if (state.overlay === "classes") names = state.classes.map(({ name, colour }) => [name, colour]);
  get("legend").hidden = !range && !names;
  ["legend-low", "legend-ramp", "legend-high"].forEach((id) => (get(id).hidden = !range));
  get("legend-names").replaceChildren(...(names ?? []).map(([name, colour]) => element("li", {}, swatchOf(colour), name)));
  if (!range) return;
  const digits = Math.max(...range.map(Math.abs)) > 100 ? 0 : 3;
  get("legend-low").textContent = (state.overlay === "similar" && state.share >= 1 ? "≤ " : "") + range[0].toFixed(digits);
  get("legend-high").textContent = range[1].toFixed(digits);
  const context = get("legend-ramp").getContext("2d");
  context.drawImage(imageOf(128, 1, (i, rgba, at) => rgba.set([...RAMP.slice(6 * i, 6 * i + 3), 255], at)), 0, 0);
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
  get("save-classes").disabled = !state.labels.length || !isGrid;
  get("clear-labels").disabled = !state.labels.length;
}

// --- files ------------------------------------------------------------------------------------------------------------

function saveSimilar() {
  const layer = layers[state.shown];
  const about = `cosine similarity to ${state.examples.length} examples, ${layer.title}${layer.warning ? `, ${layer.warning}` : ""}`;
  const values = similarityIn(layer).values;
  download("similarity.tif", [geoTiff(values, layer, told.crs, { nodata: "nan", description: about })], "image/tiff");
}

function saveClasses() {
  const layer = layers[state.shown];
  const names = state.classes.map(({ name }, number) => `${number + 1} ${name}`).join(", ");
  const palette = [[0, 0, 0], ...state.classes.map(({ colour }) => rgbOf(colour))];
  const about = `${names}; ${state.nearest} nearest labels, ${layer.title}${layer.warning ? `, ${layer.warning}` : ""}`;
  download("classes.tif", [geoTiff(classesIn(layer), layer, told.crs, { nodata: "0", description: about, palette })], "image/tiff");
}

function saveLabels() {
  const features = state.labels.map(({ layer, item, x, y, number }) => {
    const from = layers[layer];
    const where = isGrid ? { row: Math.floor(item / from.width), column: item % from.width } : { id: from.ids[item] };
    const properties = { label: state.classes[number].name, class: number + 1, result: from.title, ...where };
    return { lonLat: places.lonLat(x, y), properties };
  });
  download("labels.geojson", [geoJson(features)], "application/geo+json");
}

// --- the table of points ----------------------------------------------------------------------------------------------

const ROWS = 200;

function showTable() {
  const layer = layers[state.shown];
  const similar = similarityIn(layer);
  const wanted = get("search").value.trim().toLowerCase();
  let rows = [...layer.ids.keys()].filter((i) => !state.selection || state.selection.has(i));
  if (wanted) {
    const columns = layer.columns.filter(({ kind }) => kind === "text");
    const texts = (i) => [layer.ids[i], ...columns.map(({ values }) => values[i] ?? "")];
    rows = rows.filter((i) => texts(i).some((text) => text.toLowerCase().includes(wanted)));
  }
  if (similar) rows.sort((a, b) => (similar.values[b] || -2) - (similar.values[a] || -2));
  const names = ["id", ...(similar ? ["similarity"] : []), ...layer.columns.map(({ name }) => name)];
  get("table-head").replaceChildren(...names.map((name) => element("th", { textContent: name, scope: "col" })));
  get("table-body").replaceChildren(...rows.slice(0, ROWS).map((i) => tableRow(layer, similar, i)));
  const cut = rows.length > ROWS ? `, the first ${ROWS} shown` : "";
  get("table-text").textContent = `${rows.length.toLocaleString("en")} of ${layer.ids.length.toLocaleString("en")} places${cut}`;
  get("select-none").hidden = !state.selection;
}

function tableRow(layer, similar, i) {
  const button = element("button", { type: "button", textContent: layer.ids[i] });
  const cells = [button, ...(similar ? [similar.values[i].toFixed(3)] : [])];
  const text = (value) => (value === null ? "" : typeof value === "number" ? String(Number(value.toPrecision(6))) : value);
  cells.push(...layer.columns.map(({ values }) => text(values[i])));
  const chosen = state.examples.some((one) => one.items.includes(i));
  const row = element("tr", { className: chosen ? "chosen" : "" }, ...cells.map((cell) => element("td", {}, cell)));
  row.addEventListener("click", (event) => use(i, tool() === "unlike" || event.shiftKey ? -1 : 1));
  return row;
}

function startPoints() {
  const layer = layers[state.shown];
  get("projection-box").hidden = get("table-panel").hidden = get("colour-row").hidden = false;
  get("base-row").hidden = get("save-classes").hidden = get("save-similar").hidden = true;
  get("overlay").parentElement.hidden = get("opacity").parentElement.hidden = get("apart").parentElement.hidden = true;
  get("keys").textContent = "Arrow keys move the map, + and − zoom, 0 shows all. The ids in the table are buttons.";
  view.resize();
  view.fit();
  const xs = layer.projection.filter((_, k) => k % 2 === 0);
  const ys = layer.projection.filter((_, k) => k % 2 === 1);
  const room = 0.05;
  projection = new View(get("projection"), [-1 - room, -1 - room, 1 + room, 1 + room]);
  get("projection-text").textContent = `Components 1 and 2: ${layer.shares.slice(0, 2).map((share) => `${Math.round(100 * share)} %`).join(" and ")} of the variance`;
  const under = (px, py) => nearestOf(xs, ys, ...projection.toWorld(px, py), 14 / projection.scale);
  listen(projection, {
    tap: (px, py, event) => use(under(px, py), tool() === "unlike" || event.shiftKey ? -1 : 1),
    draws: (event) => ["lasso", "label"].includes(tool()) && !event.ctrlKey,
    stroke(points, event, finished) {
      if (tool() === "label") return addLabels([under(...points[points.length - 1])].filter((i) => i >= 0));
      projection.lasso = finished ? null : points;
      const ring = points.map(([px, py]) => projection.toWorld(px, py));
      const inside = () => [...xs.keys()].filter((i) => isInside(ring, xs[i], ys[i]));
      if (finished) selectItems(inside(), event.shiftKey ? -1 : 1, null);
    },
    hover(px, py) {
      const item = px === null ? -1 : under(px, py);
      get("where").textContent = item < 0 ? "" : whereText(...layer.centre(item), item);
    },
    change: requestDraw,
  });
  const columns = layer.columns.map(({ name }, n) => [`column ${n}`, name]);
  fillSelect(get("colour"), [["", "principal components"], ["similar", "similarity"], ["classes", "class"], ...columns], "");
  get("colour").addEventListener("change", () => {
    state.colour = get("colour").value;
    state.overlay = ["similar", "classes"].includes(state.colour) ? state.colour : "none";
    showFound();
    requestDraw();
  });
  get("search").addEventListener("input", showTable);
  get("select-none").addEventListener("click", () => {
    state.selection = null;
    showFound();
    requestDraw();
  });
}

// --- the controls of layers -------------------------------------------------------------------------------------------

function showLayer() {
  const layer = layers[state.shown];
  get("subtitle").textContent = layer.when;
  get("shown").value = state.shown;
  get("time").value = state.shown;
  get("time-text").textContent = layer.when;
  get("random").hidden = !layer.warning;
  get("random").textContent = layer.warning ? `${layer.warning.toUpperCase()}: THESE PATTERNS MEAN NOTHING` : "";
  const bases = [["picture", "True colour", layer.picture !== null], ["pca", "Components", true], ["valid", "Valid share", Boolean(layer.valid)], ["none", "None", true]];
  const offered = bases.filter(([, , there]) => there);
  if (!offered.some(([name]) => name === state.base)) state.base = "pca";
  get("base-row").replaceChildren(
    ...offered.map(([name, text]) => {
      const radio = element("input", { type: "radio", name: "base", value: name, checked: state.base === name });
      radio.addEventListener("change", () => {
        state.base = name;
        get("components-row").hidden = name !== "pca" && isGrid;
        showFound();
        requestDraw();
      });
      return element("label", {}, radio, text);
    }),
  );
  const options = layer.shares.map((share, k) => [k, `${k + 1}: ${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`]);
  ["red", "green", "blue"].forEach((id, c) => fillSelect(get(id), options, Math.min(state.components[c], options.length - 1)));
  get("components-row").hidden = state.base !== "pca" && isGrid;
  const others = layers.map((one, n) => [n, one.title]).filter(([n]) => n !== state.shown);
  if (state.beside === state.shown) state.beside = -1;
  fillSelect(get("beside"), [[-1, "nothing"], ...others], state.beside);
  get("swipe").hidden = state.beside < 0;
  const comparable = changeBetween(layer, layers[state.beside]) !== null;
  if (!comparable && state.overlay === "change") state.overlay = "none";
  const overlays = [["none", "None"], ["similar", "Similarity"], ["classes", "Class map"], ["change", "Change: 1 − cosine"]];
  fillSelect(get("overlay"), overlays.filter(([name]) => name !== "change" || comparable), state.overlay);
  showFound();
  requestDraw();
}

function show(number) {
  state.shown = Number(number);
  state.cross = null;
  showLayer();
}

function about() {
  const sections = layers.flatMap((layer) => [
    element("h3", { textContent: layer.title }),
    element("dl", {}, ...[...layer.facts, ["Vectors in this page", layer.stored]].flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })])),
  ]);
  get("about-body").replaceChildren(...sections, element("h3", { textContent: "This page" }), element("p", { textContent: told.about }));
  get("about").showModal();
}

function start() {
  get("title").textContent = told.title;
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  get("credit").textContent = told.credit;
  mapCanvas.setAttribute("aria-label", `Map of ${told.title}`);
  const isSeries = layers.length > 1 && new Set(layers.map(({ space }) => space)).size === 1 && layers.every(({ when }) => when);
  get("shown-row").hidden = layers.length < 2 || isSeries;
  get("time-row").hidden = !isSeries;
  get("beside-row").hidden = layers.length < 2 || !isGrid;
  get("time").max = layers.length - 1;
  fillSelect(get("shown"), layers.map((one, n) => [n, one.title]), state.shown);
  if (!isGrid) startPoints();

  const changed = (id, event, act) => get(id).addEventListener(event, () => act(get(id)));
  changed("shown", "change", (one) => show(one.value));
  changed("time", "input", (one) => show(one.value));
  changed("beside", "change", (one) => {
    state.beside = Number(one.value);
    showLayer();
  });
  changed("swipe", "input", (one) => {
    state.swipe = one.value / 1000;
    requestDraw();
  });
  changed("overlay", "change", (one) => {
    state.overlay = one.value;
    showFound();
    requestDraw();
  });
  changed("opacity", "input", (one) => {
    state.opacity = one.value / 100;
    requestDraw();
  });
  changed("share", "input", (one) => {
    state.share = one.value / 1000;
    showShare(layers[state.shown], similarityIn(layers[state.shown]));
    showLegend(layers[state.shown], similarityIn(layers[state.shown]));
    requestDraw();
  });
  changed("centred", "change", (one) => {
    state.centred = one.checked;
    examplesChanged();
  });
  changed("apart", "change", (one) => {
    state.apart = one.checked;
    showFound();
  });
  ["red", "green", "blue"].forEach((id, c) =>
    changed(id, "change", (one) => {
      state.components = state.components.map((k, n) => (n === c ? Number(one.value) : k));
      showFound();
      requestDraw();
    }),
  );
  changed("clear-examples", "click", () => {
    state.examples = [];
    state.selection = null;
    examplesChanged();
  });
  changed("clear-labels", "click", () => {
    state.labels = [];
    labelsVersion += 1;
    labelsChanged();
  });
  changed("nearest", "input", (one) => {
    state.nearest = Math.max(1, Math.min(NearestLabels.KEPT, Number(one.value) || 1));
    requestDraw();
  });
  changed("class-add", "click", () => {
    const name = get("class-name").value.trim();
    if (!name || state.classes.length >= 250) return;
    state.brush = state.classes.length;
    state.classes.push({ name, colour: CLASS_COLOURS[state.classes.length % CLASS_COLOURS.length] });
    get("class-name").value = "";
    document.querySelector("input[name=tool][value=label]").checked = true;
    showClasses();
  });
  get("class-name").addEventListener("keydown", (event) => event.key === "Enter" && get("class-add").click());
  changed("save-similar", "click", saveSimilar);
  changed("save-labels", "click", saveLabels);
  changed("save-classes", "click", saveClasses);
  changed("about-open", "click", about);
  changed("theme", "click", () => {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    requestDraw();
  });
  showClasses();
  showLayer();
}

/** For the console, and for tests. */
const explorer = { state, layers, places, view, similarityIn, classesIn, changeBetween, clickMs: null };
window.explorer = explorer;
start();
