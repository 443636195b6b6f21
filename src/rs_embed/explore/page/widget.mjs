// The page in a frame of a notebook. Only messages of that very frame are heard.

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.title = "Embeddings on a map";
  frame.setAttribute("sandbox", "allow-scripts allow-downloads allow-forms"); // forms: dialogs close by one
  frame.srcdoc = model.get("page");
  Object.assign(frame.style, { width: "100%", height: `${model.get("height_px")}px`, border: "0", borderRadius: "6px" });
  const heard = (event) => {
    if (event.source !== frame.contentWindow || event.data?.from !== "rs_embed") return;
    model.set("selected_geojson", event.data.selected);
    model.set("labels_geojson", event.data.labels);
    model.save_changes();
  };
  window.addEventListener("message", heard);
  el.append(frame);
  return () => window.removeEventListener("message", heard);
}

export default { render };
