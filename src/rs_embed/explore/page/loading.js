// Labels from a file: the GeoJSON that the page saved, or that a GIS wrote.

/**
 * The labelled points of a GeoJSON text, and how many features are something else. The name of a class is the column
 * `label`, or else `class`; where there are both, `class` is its number.
 *
 * @returns {labels: [{lon, lat, id, name, number}], others}, or {wrong}: what to tell the user.
 */
function readLabels(text) {
  let read = null;
  try {
    read = JSON.parse(text);
  } catch {
    return { wrong: "Expected a GeoJSON file, got something else." };
  }
  if (!Array.isArray(read?.features)) return { wrong: "Expected a GeoJSON file with features, got none." };
  const crs = read.crs?.properties?.name ?? "CRS84";
  if (!/CRS84$|EPSG:(.*:)?4326$/i.test(crs)) return { wrong: `Expected labels in EPSG:4326, got ${crs}. Save them in EPSG:4326.` };
  const labels = [];
  let others = 0;
  for (const feature of read.features) {
    const { geometry, properties } = feature ?? {};
    const corners = { Point: [geometry?.coordinates], MultiPoint: geometry?.coordinates }[geometry?.type] ?? [];
    const name = String(properties?.label ?? properties?.class ?? "").trim();
    const points = corners.filter((one) => Number.isFinite(one?.[0]) && Number.isFinite(one?.[1]));
    if (!name || !points.length) others += 1;
    else labels.push(...points.map(([lon, lat]) => ({ lon, lat, id: properties.id, name, number: properties.class })));
  }
  return { labels, others };
}

/** The number of a class, which is made if it is new: with the number that the file states, as long as that is free. */
function classNumber(name, wanted) {
  const known = state.classes.findIndex((one) => one.name === name);
  if (known >= 0) return known;
  const isFree = (number) => (state.classes[number]?.free ?? true) && !state.labels.some((one) => one.number === number);
  const keeps = Number.isInteger(wanted) && wanted >= 1 && wanted <= MOST_CLASSES && isFree(wanted - 1);
  const number = keeps ? wanted - 1 : state.classes.length;
  if (number >= MOST_CLASSES) return -1;
  for (let n = state.classes.length; n <= number; n++) state.classes.push(newClass(`Class ${n + 1}`, true));
  Object.assign(state.classes[number], { name, free: false });
  return number;
}
