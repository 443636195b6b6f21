// A region that a server holds: the page has an overview, and asks for the cells of what is on the map.

const SETTLED_MS = 250;
let detailTimer = 0;
let detailAsked = 0; // requests so far: an answer that was overtaken is dropped

/** The part of the shown layer that is on the map, with some room around it: left, bottom, right, top; or null. */
function boxOnMap(room) {
  const { edges } = layers[state.shown];
  const [left, top] = view.toWorld(-room * view.width, -room * view.height);
  const [right, bottom] = view.toWorld((1 + room) * view.width, (1 + room) * view.height);
  const box = [Math.max(left, edges[0]), Math.max(bottom, edges[1]), Math.min(right, edges[2]), Math.min(top, edges[3])];
  return box[0] < box[2] && box[1] < box[3] ? box : null;
}

/** The finest level that the server gives of a box at once; as coarse as the overview where that is all. */
function levelOf(box) {
  const { cells, most, overview } = told.server;
  const count = ([east, south]) => ((box[2] - box[0]) / east + 2) * ((box[3] - box[1]) / south + 2);
  const level = cells.findIndex((cell) => count(cell) <= most);
  return level < 0 ? overview : Math.min(level, overview);
}

/** Called whenever the map is drawn: ask once it rests. */
function considerDetail() {
  if (!told.server) return;
  clearTimeout(detailTimer);
  detailTimer = setTimeout(loadDetail, SETTLED_MS);
}

async function loadDetail() {
  const [onMap, box] = [boxOnMap(0), boxOnMap(0.2)];
  const level = box && state.beside < 0 ? levelOf(box) : told.server.overview;
  if (level >= told.server.overview) return setDetail(null);
  const { detail } = state;
  if (detail && detail.level <= level && onMap.every((edge, k) => (k < 2 ? edge >= detail.box[k] : edge <= detail.box[k]))) return;
  const number = ++detailAsked;
  const whole = layers[state.shown];
  try {
    const answer = await fetch(`part?time=${state.shown}&level=${level}&box=${box.join(",")}`);
    if (!answer.ok) throw new Error(await answer.text());
    const read = await answer.json();
    if (number === detailAsked && whole === layers[state.shown]) setDetail(read && new DetailLayer(read, whole, level, box));
  } catch (error) {
    say(error instanceof TypeError ? "The server has ended: start rs-embed explore --serve again." : error.message);
  }
}

function setDetail(detail) {
  if (state.detail === detail) return;
  Object.assign(state, { detail, cross: null });
  showLayer();
}

/** How large cells are, where that changes with the zoom. */
function resolutionText(layer) {
  const here = told.server && places.at(...layer.centre(0));
  if (!here) return "";
  const size = `cells of ${lengthText(Math.round(layer.cell[0] * here.metresPerUnit))}`;
  return layer.level === 0 ? `${size}, full detail` : `${size}, an overview: zoom in for more`;
}
