// Pages of points: the projection beside the map, and the table below it.

const ROWS = 200;

function showTable() {
  const layer = shownLayer();
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
  const layer = shownLayer();
  get("projection-box").hidden = get("table-panel").hidden = get("colour-row").hidden = false;
  get("base-row").hidden = !told.tiles;
  get("save-classes").hidden = get("save-similar").hidden = true;
  get("overlay").parentElement.hidden = get("opacity").parentElement.hidden = get("apart").parentElement.hidden = true;
  get("keys").textContent = "Arrow keys move the map, + and − zoom, 0 shows all. The ids in the table are buttons.";
  view.resize();
  view.fit();
  const xs = layer.projection.filter((_, k) => k % 2 === 0);
  const ys = layer.projection.filter((_, k) => k % 2 === 1);
  const room = 0.05;
  projection = new View(get("projection"), [-1 - room, -1 - room, 1 + room, 1 + 5 * room]); // its text is at the top
  get("projection-text").textContent = layer.projected;
  get("projection").setAttribute("aria-label", `The places by their vectors. ${layer.projected}`);
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
