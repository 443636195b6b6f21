"""Files beside rasters and tables from which QGIS and GDAL take colours, names and a form for labels."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from rs_embed.learning.palette import rgb


def raster_style(path: Path, classes: Sequence[str], colours: Sequence[str]) -> Path:
    """Write the style that QGIS loads with a raster of classes: `classes.qml` beside `classes.tif`."""
    root = Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = _path(root, "pipe", "rasterrenderer")
    renderer.attrib.update({"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""})
    palette = SubElement(renderer, "colorPalette")
    for code, (name, colour) in enumerate(zip(classes, colours, strict=True), start=1):
        SubElement(palette, "paletteEntry", value=str(code), label=name, color=colour, alpha="255")
    return _write(root, path.with_suffix(".qml"))


def raster_names(path: Path, classes: Sequence[str], colours: Sequence[str]) -> Path:
    """Write the names that GDAL reads with a raster: category names and a raster attribute table, `.tif.aux.xml`."""
    root = Element("PAMDataset")
    band = SubElement(root, "PAMRasterBand", band="1")
    names = SubElement(band, "CategoryNames")
    for name in ("", *classes):
        SubElement(names, "Category").text = name
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    # type: 0 whole number, 2 text; usage: 5 value (MinMax), 2 name, 6 to 8 red, green and blue
    for index, (name, kind, usage) in enumerate(
        (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    ):
        field = SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", str(kind)), ("Usage", str(usage))):
            SubElement(field, tag).text = text
    for index, (name, colour) in enumerate(zip(classes, colours, strict=True)):
        row = SubElement(table, "Row", index=str(index))
        for cell in (index + 1, name, *rgb(colour)):
            SubElement(row, "F").text = str(cell)
    return _write(root, path.with_name(f"{path.name}.aux.xml"))


def polygon_style(path: Path, column: str, classes: Sequence[str], colours: Sequence[str]) -> Path:
    """Write the style that QGIS loads with polygons of classes: a colour for each value of a column."""
    root = Element("qgis", version="3.22", styleCategories="Symbology")
    _coloured(root, "fill", column, classes, colours)
    return _write(root, path.with_suffix(".qml"))


def label_form(path: Path, column: str, classes: Sequence[str], colours: Sequence[str]) -> Path:
    """Write the style and form that QGIS loads with points to label: the classes are a list to choose from."""
    root = Element("qgis", version="3.22", styleCategories="Symbology|Fields|Forms")
    _coloured(root, "marker", column, classes, colours)
    field = _path(root, "fieldConfiguration", "field")
    field.set("name", column)
    widget = SubElement(field, "editWidget", type="ValueMap")
    options = _path(widget, "config", "Option")
    options.set("type", "Map")
    entries = SubElement(options, "Option", type="List", name="map")
    for name in classes:
        entry = SubElement(entries, "Option", type="Map")
        SubElement(entry, "Option", type="QString", name=name, value=name)
    return _write(root, path.with_suffix(".qml"))


def _coloured(root: Element, kind: str, column: str, classes: Sequence[str], colours: Sequence[str]) -> None:
    """Add a symbol for each class, and a grey one for everything else."""
    renderer = SubElement(root, "renderer-v2", type="categorizedSymbol", attr=column, symbollevels="0")
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for number, (name, colour) in enumerate([*zip(classes, colours, strict=True), ("", "#bdbdbd")]):
        label = name or "not labelled"
        SubElement(categories, "category", symbol=str(number), value=name, label=label, render="true")
        symbol = SubElement(symbols, "symbol", type=kind, name=str(number), alpha="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleFill" if kind == "fill" else "SimpleMarker"})
        options = SubElement(layer, "Option", type="Map")
        outline = "no" if kind == "fill" else "solid"
        for option, value in (("color", ",".join(map(str, (*rgb(colour), 255)))), ("outline_style", outline)):
            SubElement(options, "Option", type="QString", name=option, value=value)


def _path(parent: Element, *names: str) -> Element:
    for name in names:
        parent = SubElement(parent, name)
    return parent


def _write(root: Element, path: Path) -> Path:
    indent(root)
    path.write_text(tostring(root, encoding="unicode"), encoding="utf-8")  # GDAL reads no file with a declaration
    return path
