// A base map of tiles in Web Mercator, if the page was made with one: asked for when it is chosen, and drawn in the page's CRS.

const TILE_PX = 256;
const DEEPEST = 19;
const MOST_TILES = 48;
const KEPT_TILES = 300;
const AROUND = 0.3; // of the map's size: further out, degrees are not known well enough
const EQUATOR_M = 40075016.686;
const tileImages = new Map(); // "z/x/y" -> Image, oldest first

const MOST_LATITUDE = 85.05; // where Web Mercator ends

/** Web Mercator from 0 to 1: to the east from 180° W, to the south. */
function mercatorOf([lon, lat]) {
  const within = (Math.max(-MOST_LATITUDE, Math.min(MOST_LATITUDE, lat)) * Math.PI) / 180;
  return [lon / 360 + 0.5, 0.5 - Math.asinh(Math.tan(within)) / (2 * Math.PI)];
}

const fromMercator = (u, v) => [360 * (u - 0.5), (Math.atan(Math.sinh(2 * Math.PI * (0.5 - v))) * 180) / Math.PI];

/** The part of the view that tiles may cover: its edges in Mercator, and about which x belongs to a place to the east. */
function partForTiles() {
  const [left, bottom, right, top] = view.bounds;
  const [roomX, roomY] = [AROUND * (right - left), AROUND * (top - bottom)];
  const [[x0, y1], [x1, y0]] = [view.toWorld(0, 0), view.toWorld(view.width, view.height)];
  const [west, east] = [Math.max(x0, left - roomX), Math.min(x1, right + roomX)];
  const [south, north] = [Math.max(y0, bottom - roomY), Math.min(y1, top + roomY)];
  const steps = [0, 0.2, 0.4, 0.6, 0.8, 1];
  let last = mercatorOf(places.lonLat(west, south))[0];
  const rows = steps.map((b) => {
    const row = steps.map((a) => {
      const [u, v] = mercatorOf(places.lonLat(west + a * (east - west), south + b * (north - south)));
      last = u - Math.round(u - last); // no jump where longitudes have one
      return [last, v];
    });
    last = row[0][0];
    return row;
  });
  const range = (k, choose) => choose(...rows.flat().map((point) => point[k]));
  const [u0, u1] = [rows[0][0][0], rows[0][5][0]];
  const xOf = (u) => west + ((u - u0) / (u1 - u0)) * (east - west);
  return { edges: [range(0, Math.min), range(1, Math.min), range(0, Math.max), range(1, Math.max)], xOf };
}

function drawTiles() {
  const here = places.at(view.x, view.y);
  const narrow = Math.cos((places.lonLat(view.x, view.y)[1] * Math.PI) / 180);
  const { edges, xOf } = partForTiles();
  const [west, north, east, south] = edges;
  const fine = Math.round(Math.log2((EQUATOR_M * narrow * view.scale) / (TILE_PX * here.metresPerUnit)));
  let z = Math.max(0, Math.min(DEEPEST, fine));
  const span = () => [Math.floor(west * 2 ** z), Math.floor(north * 2 ** z), Math.floor(east * 2 ** z), Math.floor(south * 2 ** z)];
  const count = ([x0, y0, x1, y1]) => (x1 - x0 + 1) * (y1 - y0 + 1);
  while (z > 0 && count(span()) > MOST_TILES) z -= 1;
  const [x0, y0, x1, y1] = span();
  const [lowest, highest] = [Math.max(0, y0), Math.min(2 ** z - 1, y1)];
  for (let y = lowest; y <= highest; y++) for (let x = x0; x <= x1; x++) drawTile(z, x, y, xOf);
}

/** A tile in pieces, each as an affine image of a part: a large tile is not one in the page's CRS. */
function drawTile(z, x, y, xOf) {
  const image = tileImage(z, ((x % 2 ** z) + 2 ** z) % 2 ** z, y);
  if (!image.complete || !image.naturalWidth) return;
  const { context } = view;
  const pieces = z < 6 ? 16 : z < 10 ? 4 : 1;
  const size = image.naturalWidth / pieces;
  const screen = (column, row) => {
    const u = (x + column / pieces) / 2 ** z;
    const at = places.xy(...fromMercator(u, (y + row / pieces) / 2 ** z), [xOf(u), view.y]);
    return at && view.toScreen(...at);
  };
  for (let row = 0; row < pieces; row++) {
    for (let column = 0; column < pieces; column++) {
      const [corner, right, below] = [screen(column, row), screen(column + 1, row), screen(column, row + 1)];
      if (!corner || !right || !below) continue;
      context.save();
      context.transform(right[0] - corner[0], right[1] - corner[1], below[0] - corner[0], below[1] - corner[1], ...corner);
      context.imageSmoothingEnabled = true;
      context.drawImage(image, column * size, row * size, size, size, 0, 0, 1.004, 1.004); // no seams
      context.restore();
    }
  }
}

function tileImage(z, x, y) {
  const key = `${z}/${x}/${y}`;
  let image = tileImages.get(key);
  if (!image) {
    image = new Image();
    image.onload = requestDraw;
    image.onerror = () => say(`No base map from ${told.tiles.origin}.`);
    image.src = told.tiles.url.replace("{z}", z).replace("{x}", x).replace("{y}", y);
    tileImages.set(key, image);
    if (tileImages.size > KEPT_TILES) tileImages.delete(tileImages.keys().next().value);
  }
  return image;
}
