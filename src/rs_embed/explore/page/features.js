// Examples and labels as GeoJSON: for a file, and for the notebook around the page.

const lonLatOf = (x, y) => (places.known ? places.lonLat(x, y) : null);

/** Which result an item is of, and which one it is there; in a part of a larger grid, rows would mislead. */
function itemProperties(layer, item) {
  if (layer.of) return { result: layer.title };
  const where = isGrid ? { grid_row: Math.floor(item / layer.width), grid_column: item % layer.width } : { id: layer.ids[item] };
  return { result: layer.title, ...where };
}

function labelsAsGeoJson() {
  return geoJson(
    state.labels.map(({ layer, item, x, y, number }) => {
      const properties = { label: state.classes[number].name, class: number + 1, ...itemProperties(layer, item) };
      return { lonLat: lonLatOf(x, y), properties };
    }),
  );
}

/** A point for each item; for an area of a grid, its ring. */
function examplesAsGeoJson() {
  const found = state.examples.flatMap(({ sign, layer, items, ring }) => {
    const example = sign > 0 ? "like" : "unlike";
    const isArea = isGrid && ring;
    if (isArea) return [{ lonLat: places.known ? ring.map((at) => lonLatOf(...at)) : null, properties: { example, result: layer.title } }];
    return items.map((item) => ({ lonLat: lonLatOf(...layer.centre(item)), properties: { example, ...itemProperties(layer, item) } }));
  });
  return geoJson(found);
}

/** Only a notebook's widget shows the page from text. Nobody else is told anything. */
function tellNotebook() {
  if (location.href !== "about:srcdoc") return;
  window.parent.postMessage({ from: "rs_embed", selected: examplesAsGeoJson(), labels: labelsAsGeoJson() }, "*");
}
