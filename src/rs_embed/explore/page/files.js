// Files that the page offers: GeoTIFF and GeoJSON, made here, without a server.

function download(name, parts, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/**
 * A baseline GeoTIFF of one band: little-endian, one strip, not compressed.
 *
 * @param values Uint8Array (classes, with a palette) or Float32Array, row by row from the north-west.
 * @param grid {width, height, left, top, cell: [east, south]} in the CRS.
 * @param crs {epsg, geographic} or null.
 * @param more {nodata, description, palette: list of [r, g, b] for the values 0, 1, ...}.
 */
function geoTiff(values, grid, crs, more) {
  const isFloat = values instanceof Float32Array;
  const text = (string) => new TextEncoder().encode(`${string}\0`);
  const [SHORT, LONG, ASCII, DOUBLE] = [3, 4, 2, 12];
  const shorts = (...list) => [SHORT, Uint16Array.from(list)];
  const tags = new Map([
    [256, [LONG, Uint32Array.of(grid.width)]],
    [257, [LONG, Uint32Array.of(grid.height)]],
    [258, shorts(isFloat ? 32 : 8)],
    [259, shorts(1)], // no compression
    [262, shorts(more.palette ? 3 : 1)],
    [270, [ASCII, text(more.description)]],
    [273, [LONG, Uint32Array.of(0)]], // where the pixels start: known at the end
    [277, shorts(1)],
    [278, [LONG, Uint32Array.of(grid.height)]],
    [279, [LONG, Uint32Array.of(values.byteLength)]],
    [339, shorts(isFloat ? 3 : 1)],
    [42113, [ASCII, text(more.nodata)]],
  ]);
  if (more.palette) {
    const map = new Uint16Array(3 * 256); // all reds, then greens, then blues
    more.palette.forEach((colour, i) => colour.forEach((value, c) => (map[256 * c + i] = 257 * value)));
    tags.set(320, [SHORT, map]);
  }
  if (crs) {
    tags.set(33550, [DOUBLE, Float64Array.of(grid.cell[0], grid.cell[1], 0)]);
    tags.set(33922, [DOUBLE, Float64Array.of(0, 0, 0, grid.left, grid.top, 0)]);
    const keys = [[1025, 1]]; // a pixel is an area
    if (crs.epsg) keys.unshift([1024, crs.geographic ? 2 : 1]), keys.push([crs.geographic ? 2048 : 3072, crs.epsg]);
    tags.set(34735, shorts(1, 1, 0, keys.length, ...keys.flatMap(([key, value]) => [key, 0, 1, value])));
  }

  const entries = [...tags].sort((a, b) => a[0] - b[0]);
  const body = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let free = 8 + 2 + 12 * entries.length + 4;
  const places = entries.map(([, [, array]]) => {
    if (array.byteLength <= 4) return null; // stands in the entry itself
    const at = free;
    free += array.byteLength + (array.byteLength % 2);
    return at;
  });
  const start = free + ((4 - (free % 4)) % 4);
  tags.get(273)[1][0] = start;

  const bytes = new Uint8Array(start + values.byteLength);
  const view = new DataView(bytes.buffer);
  bytes.set([0x49, 0x49, 42, 0, 8, 0, 0, 0]);
  view.setUint16(8, entries.length, true);
  entries.forEach(([tag, [kind, array]], n) => {
    const at = 10 + 12 * n;
    view.setUint16(at, tag, true);
    view.setUint16(at + 2, kind, true);
    view.setUint32(at + 4, array.length, true);
    bytes.set(body(array), places[n] ?? at + 8);
    if (places[n] !== null) view.setUint32(at + 8, places[n], true);
  });
  bytes.set(body(values), start);
  return bytes;
}

/**
 * Places as RFC 7946 wants them, in degrees: `places` are {lonLat: a point, a ring, or null, properties}.
 */
function geoJson(places) {
  const round = ([lon, lat]) => [Number(lon.toFixed(8)), Number(lat.toFixed(8))];
  const geometry = (lonLat) => {
    if (!lonLat) return null;
    if (!Array.isArray(lonLat[0])) return { type: "Point", coordinates: round(lonLat) };
    return { type: "Polygon", coordinates: [[...lonLat, lonLat[0]].map(round)] };
  };
  const features = places.map(({ lonLat, properties }) => ({ type: "Feature", geometry: geometry(lonLat), properties }));
  return { type: "FeatureCollection", features };
}
