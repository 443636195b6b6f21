"""The GeoTIFFs of a map's blocks as one raster: a VRT for each time, with relative paths."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rs_embed.core.atomic import replacing
from rs_embed.exports.records import Record, UnitStore, is_grid, row_of
from rs_embed.exports.region.grid import MapGrid
from rs_embed.exports.unit import Units
from rs_embed.formats.geotiff import COG_BLOCK_PX

MAX_SOURCES = 100_000
"""Most files times bands in a VRT, which has some 450 bytes for each; a larger mosaic gets none."""


@dataclass(frozen=True)
class _Tile:
    """The file of a block, and the part of the map that it covers, in tokens."""

    name: str
    time: int
    row: int
    column: int
    height: int
    width: int


def write_mosaics(store: UnitStore, units: Units, grid: MapGrid) -> None:
    """Write `mosaic.vrt` into the folder of a model, or a VRT for each time: `mosaic-2022-06-01.vrt`.

    Args:
        store: The files of the model.
        units: All units of the run, finished.
        grid: Grid of the map.
    """
    tiles = list(_tiles(store, units, grid))
    for time, days in enumerate(grid.days):
        mine = [tile for tile in tiles if tile.time == time]
        path = store.folder / ("mosaic.vrt" if len(grid.days) == 1 or days is None else f"mosaic-{days[0]}.vrt")
        text = _vrt(store.folder, mine, grid) if mine else None
        if text is None:
            path.unlink(missing_ok=True)
            continue
        with replacing(path) as part:
            part.write_bytes(text)


def _tiles(store: UnitStore, units: Units, grid: MapGrid) -> Iterator[_Tile]:
    places = dict(grid.blocks())
    for unit in units:
        record = Record.load(store.record(unit))
        for name in filter(is_grid, record.files if record else ()):
            number = row_of(name)
            place = places[number]
            west, north = place.west - grid.shift_m, place.north + grid.shift_m
            top, left = (round(distance / grid.cell_m) for distance in (grid.north - north, west - grid.west))
            height, width = (round(side / grid.cell_m) for side in (place.north - place.south, place.east - place.west))
            yield _Tile(name, grid.position(number)[0], top, left, height, width)


def _vrt(folder: Path, tiles: list[_Tile], grid: MapGrid) -> bytes | None:
    import rasterio

    with rasterio.open(folder / tiles[0].name) as first:
        names = first.descriptions
    if len(names) * len(tiles) > MAX_SOURCES:
        return None
    height, width = grid.shape
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ElementTree.SubElement(root, "SRS").text = grid.crs
    corner = (grid.west, grid.cell_m, 0.0, grid.north, 0.0, -grid.cell_m)
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, corner))
    for number, name in enumerate(names, 1):
        band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Float32", band=str(number))
        if name:
            ElementTree.SubElement(band, "Description").text = name
        ElementTree.SubElement(band, "NoDataValue").text = str(math.nan)
        for tile in tiles:
            _add_source(band, tile, number, grid)
    ElementTree.indent(root)
    return ElementTree.tostring(root)


def _add_source(band: ElementTree.Element, tile: _Tile, number: int, grid: MapGrid) -> None:
    source = ElementTree.SubElement(band, "SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = tile.name
    ElementTree.SubElement(source, "SourceBand").text = str(number)
    size = {"RasterXSize": str(tile.width), "RasterYSize": str(tile.height), "DataType": "Float32"}
    block = {"BlockXSize": str(COG_BLOCK_PX), "BlockYSize": str(COG_BLOCK_PX)}
    ElementTree.SubElement(source, "SourceProperties", {**size, **block})  # so that no file is opened before it is read
    height, width = (min(side, rest) for side, rest in _rest(tile, grid))
    part = {"xSize": str(width), "ySize": str(height)}
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **part})
    ElementTree.SubElement(source, "DstRect", {"xOff": str(tile.column), "yOff": str(tile.row), **part})


def _rest(tile: _Tile, grid: MapGrid) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sides of a tile, and what is left of the map from its corner on: blocks may extend further than the map."""
    return (tile.height, grid.height - tile.row), (tile.width, grid.width - tile.column)
