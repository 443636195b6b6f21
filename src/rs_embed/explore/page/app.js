// What clicks, strokes, keys and controls do to the state, and the files that buttons save.

let made = 0; // examples so far: each gets a number

// --- what changes the state -------------------------------------------------------------------------------------------

/** Add an example: an item, or the mean of several. A click on an item that is one already takes it away. */
function addExample(sign, items, x, y, ring = null) {
  const layer = shownLayer();
  if (!layer.mean(items)) return say("There is no value here.");
  const isItem = (one) => one.items.length === 1 && one.layer === layer && one.items[0] === items[0];
  const same = items.length === 1 ? state.examples.findIndex(isItem) : -1;
  if (same >= 0 && state.examples[same].sign === sign) state.examples.splice(same, 1);
  else {
    if (same >= 0) state.examples.splice(same, 1);
    state.examples.push({ id: ++made, sign, layer, items, x, y, ring });
  }
  examplesChanged();
}

function examplesChanged() {
  const found = state.examples.length > 0;
  const follows = state.overlay === "ranks" && layers[state.beside]; // a difference of similarity changes by itself
  if (!follows && (found || state.overlay === "similar")) setOverlay(found ? "similar" : state.labels.length ? "classes" : "none");
  if (found && !state.examples.some((one) => one.sign > 0)) say("Add a place that you look for: + Like.");
  draw();
  tellNotebook();
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
  for (const item of items) putLabel(item, state.brush);
  labelsChanged();
}

/** Give an item a class; a negative number takes its label away. */
function putLabel(item, number) {
  const layer = shownLayer();
  if (!layer.vectors.has(item)) return;
  const same = state.labels.findIndex((one) => one.layer === layer && one.item === item);
  if (same >= 0 && state.labels[same].number === number) return;
  if (same >= 0) {
    state.labels.splice(same, 1);
    labelsVersion += 1;
  }
  const [x, y] = layer.centre(item);
  if (number >= 0) state.labels.push({ layer, item, items: [item], x, y, number });
}

async function loadLabels(file) {
  const layer = shownLayer();
  const { labels, others, wrong } = readLabels(await file.text());
  if (wrong) return say(wrong);
  const middle = [(layer.edges[0] + layer.edges[2]) / 2, (layer.edges[1] + layer.edges[3]) / 2];
  let outside = 0;
  for (const { lon, lat, id, name, number } of labels) {
    const at = places.xy(lon, lat, middle);
    const item = at ? layer.itemOf(...at, id) : -1;
    const chosen = layer.vectors.has(item) ? classNumber(name, number) : -1;
    if (chosen >= 0) putLabel(item, chosen);
    else outside += 1;
  }
  labelsChanged();
  const parts = [`${labels.length - outside} labels loaded`];
  if (outside) parts.push(`${outside} lie where this result has no value${state.classes.length >= MOST_CLASSES ? `, or are of more than ${MOST_CLASSES} classes` : ""}`);
  if (others) parts.push(`${others} are not points with a column label or class`);
  say(`${parts.join("; ")}.`);
}

function labelsChanged() {
  if (state.labels.length) setOverlay("classes");
  else if (state.overlay === "classes") setOverlay(state.examples.length ? "similar" : "none");
  showClasses();
  showFound();
  requestDraw();
  tellNotebook();
}

// --- the map ----------------------------------------------------------------------------------------------------------

function itemUnder(px, py) {
  const [x, y] = view.toWorld(px, py);
  const item = shownLayer().itemAt(x, y, 14 / view.scale);
  if (item >= 0 || !state.detail) return item;
  setDetail(null); // outside of the part that is here in detail
  return itemUnder(px, py);
}

function use(item, sign) {
  const layer = shownLayer();
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
    const under = () => shownLayer().itemAt(...view.toWorld(px, py), 14 / view.scale);
    get("where").textContent = px === null ? "" : whereText(...view.toWorld(px, py), under());
  },
  change: requestDraw,
});

function useLasso(ring, sign) {
  const layer = shownLayer();
  selectItems(layer.itemsIn(ring), sign, ring);
}

function selectItems(items, sign, ring) {
  if (!items.length) return say(isGrid ? "The area holds no middle of a cell: draw it larger." : "No point lies inside.");
  if (!isGrid) state.selection = new Set(items);
  const [x, y] = shownLayer().centre(items[0]);
  addExample(sign, items, x, y, ring);
}

function whereText(x, y, item) {
  const layer = shownLayer();
  const parts = [places.text(x, y)];
  if (isGrid && told.crs) parts.push(`${x.toFixed(1)}, ${y.toFixed(1)} in ${told.crs.name}`);
  if (item >= 0) {
    parts.push(layer.textOf(item));
    if (!layer.vectors.has(item)) parts.push("no value");
    else if (layer.valid) parts.push(`${Math.round((100 * layer.valid[item]) / 255)} % valid`);
    const similar = similarityIn(layer);
    if (similar && layer.vectors.has(item)) parts.push(`similarity ${similar.values[item].toFixed(3)}`);
    const difference = differenceIn(layer);
    if (difference && !Number.isNaN(difference.values[item])) parts.push(`difference ${difference.values[item].toFixed(3)}`);
  }
  return parts.join(" · ");
}

mapCanvas.addEventListener("keydown", (event) => {
  const layer = shownLayer();
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

// --- files ------------------------------------------------------------------------------------------------------------

function saveSimilar() {
  const layer = shownLayer();
  const about = `cosine similarity to ${state.examples.length} examples, ${layer.title}${layer.warning ? `, ${layer.warning}` : ""}`;
  const values = similarityIn(layer).values;
  download("similarity.tif", [geoTiff(values, layer, told.crs, { nodata: "nan", description: about })], "image/tiff");
}

function saveClasses() {
  const layer = shownLayer();
  const names = state.classes.map(({ name }, number) => `${number + 1} ${name}`).join(", ");
  const palette = [[0, 0, 0], ...state.classes.map(({ colour }) => rgbOf(colour))];
  const about = `${names}; ${state.method === "logistic" ? "logistic regression" : `${state.nearest} nearest labels`}, ${layer.title}${layer.warning ? `, ${layer.warning}` : ""}`;
  download("classes.tif", [geoTiff(classesIn(layer), layer, told.crs, { nodata: "0", description: about, palette })], "image/tiff");
}

function saveLabels() {
  download("labels.geojson", [JSON.stringify(labelsAsGeoJson(), null, 1)], "application/geo+json");
}

// --- the controls of layers -------------------------------------------------------------------------------------------

function showLayer() {
  const layer = shownLayer();
  get("subtitle").textContent = [layer.when, resolutionText(layer)].filter(Boolean).join(" · ");
  get("shown").value = state.shown;
  get("time").value = state.shown;
  get("time-text").textContent = layer.when;
  showWarning(layer, layers[state.beside]);
  const ofGrid = [["picture", "True colour", layer.picture !== null], ["pca", "Components", true], ["valid", "Valid share", Boolean(layer.valid)]];
  const bases = [...(isGrid ? ofGrid : []), ["tiles", "Base map", told.tiles && places.known], ["none", "None", true]];
  const offered = bases.filter(([, , there]) => there);
  if (!offered.some(([name]) => name === state.base)) state.base = isGrid ? "pca" : "none";
  get("base-row").replaceChildren(
    ...offered.map(([name, text]) => {
      const radio = element("input", { type: "radio", name: "base", value: name, checked: state.base === name });
      radio.addEventListener("change", () => {
        state.base = name;
        showCredit();
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
  const differences = Object.entries(differenceNames).filter(([kind]) => canDiffer(kind, layer, layers[state.beside]));
  if (state.overlay in differenceNames && !differences.some(([kind]) => kind === state.overlay)) state.overlay = "none";
  fillSelect(get("overlay"), [["none", "None"], ["similar", "Similarity"], ["classes", "Class map"], ...differences], state.overlay);
  showFound();
  requestDraw();
}

/** Random weights of what is on the map, in large letters. */
function showWarning(...shown) {
  const random = shown.filter((layer) => layer?.warning);
  const who = random.length < shown.filter(Boolean).length ? `${random[0]?.name}: ` : "";
  get("random").hidden = !random.length;
  get("random").textContent = random.length ? `${who}${random[0].warning.toUpperCase()}: THESE PATTERNS MEAN NOTHING` : "";
}

function show(number) {
  Object.assign(state, { shown: Number(number), detail: null, cross: null });
  showLayer();
}

/** The sources of what is on the map. */
function showCredit() {
  const tiles = state.base === "tiles" && `Base map: ${told.tiles.credit}`;
  get("credit").textContent = [told.credit, tiles].filter(Boolean).join("; ");
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
  showCredit();
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
    Object.assign(state, { beside: Number(one.value), detail: null });
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
    showShare(shownLayer(), similarityIn(shownLayer()));
    showLegend(shownLayer(), similarityIn(shownLayer()));
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
  changed("method", "change", (one) => {
    state.method = one.value;
    get("nearest-row").hidden = state.method !== "nearest";
    requestDraw();
  });
  changed("nearest", "input", (one) => {
    state.nearest = Math.max(1, Math.min(NearestLabels.KEPT, Number(one.value) || 1));
    requestDraw();
  });
  changed("class-add", "click", () => {
    const name = get("class-name").value.trim();
    if (!name || state.classes.length >= MOST_CLASSES) return;
    state.brush = state.classes.length;
    state.classes.push(newClass(name));
    get("class-name").value = "";
    document.querySelector("input[name=tool][value=label]").checked = true;
    showClasses();
  });
  get("class-name").addEventListener("keydown", (event) => event.key === "Enter" && get("class-add").click());
  changed("save-similar", "click", saveSimilar);
  changed("save-difference", "click", saveDifference);
  changed("save-labels", "click", saveLabels);
  changed("load-labels", "click", () => get("labels-file").click());
  changed("labels-file", "change", (one) => {
    if (one.files.length) loadLabels(one.files[0]);
    one.value = ""; // so that the same file can be loaded again
  });
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
const explorer = { state, layers, shownLayer, places, view, similarityIn, classesIn, logisticIn, differenceIn, tileImages, clickMs: null };
window.explorer = explorer;
start();
