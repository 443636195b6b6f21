"""Grids of tokens as a page: one result, several side by side, or a time axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import JsonValue

from rs_embed.embedding.embedding import Embedding
from rs_embed.embedding.show import centre_of, days_of
from rs_embed.errors import NoValidPixels, SpecError
from rs_embed.explore.facts import credit_of_meta, facts_of_meta, space_of
from rs_embed.explore.lonlat import lonlat_of
from rs_embed.explore.packing import Blobs, InlineBlobs, Packed, PageComponents, have_values, pack
from rs_embed.explore.page import PLAIN, Page, PageOptions, checked_path
from rs_embed.explore.pictures import Pictures, edges_of
from rs_embed.explore.tiles import Tiles

if TYPE_CHECKING:
    from rs_embed.core.chip import Chip

ABOUT = (
    "Made by rs_embed {version}. {reach} What you click or label stays in the page, or in the notebook that shows it. "
    "The similarity is the cosine between vectors. Several examples become one direction: the mean of the examples to "
    "find, each of length 1, less the mean of the examples to avoid. Classes are those of the majority of the nearest "
    "labels by cosine, or of a multinomial logistic regression (penalty |W|^2 / 2) on standardised vectors."
)


@dataclass(frozen=True, eq=False)
class Sheet:
    """A grid that a page shows."""

    name: str
    when: str
    """Its days; empty if unknown."""
    tokens: NDArray[np.float32]
    """`[H, W, D]`; NaN without a value."""
    geobox: GeoBox | None
    space: str
    """Equal for grids whose vectors can be compared."""
    facts: Mapping[str, str]
    valid: NDArray[np.float32] | None = None
    """`[H, W]`, 0 to 1."""
    warning: str | None = None
    picture: "Chip | None" = None
    """The imagery, for a base in true colour."""

    @classmethod
    def of(cls, grid: Embedding, picture: "Chip | None" = None, licence: str = "") -> "Sheet":
        """Make a sheet of an embedding, less its position offsets if it knows them.

        Raises:
            SpecError: It is a vector.
        """
        if not grid.is_grid:
            raise SpecError(
                f"Expected a grid to explore, got one vector of {grid.data.size:,} dimensions ({grid.meta.model_id}).",
                fix="compute it with output=OutputSpec.grid(), or explore many vectors: open_run(folder).explore()",
            )
        shown = grid.debiased()
        meta = shown.meta
        dim = len(shown.data)
        return cls(
            name=meta.model_id,
            when=days_of(meta),
            tokens=np.ascontiguousarray(np.moveaxis(shown.data, 0, -1)),
            geobox=shown.geobox,
            space=space_of(meta.model_id, meta.card_revision, meta.weights, dim),
            facts=facts_of_meta(meta, licence),
            valid=shown.valid,
            warning=meta.warning,
            picture=picture,
        )

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in the CRS; in cells without a place.

        Raises:
            SpecError: The grid is turned or mirrored.
        """
        height, width, _ = self.tokens.shape
        return (0.0, 0.0, float(width), float(height)) if self.geobox is None else edges_of(self.geobox)


def explore_grids(sheets: Sequence[Sheet], path: str | Path, credit: str, options: PageOptions = PLAIN) -> Path:
    """Write a page of grids; see `Embedding.explore`."""
    target = checked_path(path)
    return grids_page(sheets, credit, options).write(target, options.max_mb)


def grids_page(sheets: Sequence[Sheet], credit: str, options: PageOptions = PLAIN) -> Page:
    """Make a page of grids.

    Raises:
        SpecError: The grids differ in CRS, or one is turned.
        NoValidPixels: A grid has no value.
    """
    _check(sheets)
    blobs, pictures = Blobs(), Pictures()
    shapes = [(sheet.tokens[..., 0].size, sheet.tokens.shape[2]) for sheet in sheets]
    forms = _forms(sheets, options.form(shapes))
    layers = [_layer(sheet, form, blobs, pictures) for sheet, form in zip(sheets, forms, strict=True)]
    first = sheets[0]
    names = " and ".join(dict.fromkeys(sheet.name for sheet in sheets))
    title = names if first.geobox is None else f"{names}, {centre_of(first.geobox)}"
    told: dict[str, JsonValue] = {
        "kind": "grid",
        "title": title,
        "credit": credit,
        "about": about(options.tiles),
        "crs": _crs(sheets),
        "pictures": list(pictures.told),
        "layers": list(layers),
    }
    return Page(title, told, blobs, tiles=options.tiles)


def explore_embeddings(
    grids: Sequence[Embedding],
    path: str | Path,
    *,
    imagery: "Chip | None" = None,
    credit: str = "",
    licences: Mapping[str, str] | None = None,
    options: PageOptions = PLAIN,
) -> Path:
    """Write a page of embeddings; see `Embedding.explore`. `licences` are those of the weights, by model id."""
    known = licences or {}
    sheets = [Sheet.of(grid, imagery, known.get(grid.meta.model_id, "")) for grid in grids]
    credit = credit or credit_of_meta(grids[0].meta)
    return explore_grids(sheets, path, credit, options)


def about(tiles: Tiles | None = None, *, is_served: bool = False) -> str:
    """Return what a page says about itself, and whom it asks."""
    import rs_embed

    reach = "The page is one file and asks no network."
    if is_served:
        reach = "The page asks only the server on this machine that it comes from."
    if tiles is not None:
        reach += f" Only the base map, if you choose it, comes from {tiles.origin}, which learns what part you look at."
    return ABOUT.format(version=rs_embed.__version__, reach=reach)


def _check(sheets: Sequence[Sheet]) -> None:
    systems = {None if sheet.geobox is None else str(sheet.geobox.crs) for sheet in sheets}
    if len(systems) > 1:
        raise SpecError(
            f"Expected grids in one CRS, got {', '.join(sorted(map(str, systems)))}.",
            fix="compute them for the same place, or reproject one: emb.to_xarray().odc.reproject(...)",
        )
    for sheet in sheets:
        if not np.isfinite(sheet.tokens).all(axis=-1).any():
            raise NoValidPixels(
                f"Expected a grid with values, got only nodata ({sheet.name}).", fix="choose another place or time"
            )


def _crs(sheets: Sequence[Sheet]) -> JsonValue:
    geobox = sheets[0].geobox
    if geobox is None or geobox.crs is None:
        return None
    lefts, bottoms, rights, tops = zip(*(sheet.edges for sheet in sheets), strict=True)
    return {
        "name": str(geobox.crs),
        "epsg": geobox.crs.to_epsg(),
        "geographic": bool(geobox.crs.geographic),
        "lonlat": lonlat_of(str(geobox.crs), (min(lefts), min(bottoms), max(rights), max(tops))),
    }


@dataclass(frozen=True, eq=False)
class _Form:
    """A sheet as a page holds it."""

    packed: Packed
    components: PageComponents


def _forms(sheets: Sequence[Sheet], how: str) -> list[_Form]:
    """Return the form of each sheet. Those of one model share axes and colours, so that they can be compared."""
    forms: dict[int, _Form] = {}
    for space in dict.fromkeys(sheet.space for sheet in sheets):
        numbers = [number for number, sheet in enumerate(sheets) if sheet.space == space]
        parts = [sheets[number].tokens.reshape(-1, sheets[number].tokens.shape[2]) for number in numbers]
        together = np.concatenate(parts)
        packed = pack(together, how)
        components = PageComponents.fit(together)
        ends = np.cumsum([len(part) for part in parts])[:-1]
        for number, mine in zip(numbers, np.split(packed.stored, ends), strict=True):
            forms[number] = _Form(replace(packed, stored=mine), components)
    return [forms[number] for number in range(len(sheets))]


def _layer(sheet: Sheet, form: _Form, blobs: Blobs, pictures: Pictures) -> dict[str, JsonValue]:
    height, width, dim = sheet.tokens.shape
    vectors = sheet.tokens.reshape(-1, dim)
    left, bottom, right, top = sheet.edges
    valid = sheet.valid
    picture = {} if sheet.picture is None else {"True colour": sheet.picture.describe()}
    return {
        **said(sheet.name, sheet.when, sheet.space, {**sheet.facts, **picture}, sheet.warning),
        **told_vectors(form.packed, ~have_values(vectors), blobs),
        "components": blobs.add(form.components.bytes(vectors)),
        "shares": list(form.components.shares),
        "shape": [height, width],
        "transform": [left, top, (right - left) / width, (top - bottom) / height],
        "valid": None if valid is None else blobs.add((255 * valid.ravel().clip(0, 1)).round().astype(np.uint8)),
        "picture": pictures.number(sheet.picture, sheet.geobox, sheet.edges),
    }


def detail_of(sheet: Sheet, components: PageComponents) -> dict[str, JsonValue] | None:
    """Return what a page is told of a part that it asked for; `None` without a value.

    Args:
        sheet: The part.
        components: Those of the overview, so that colours stay the same.
    """
    vectors = sheet.tokens.reshape(-1, sheet.tokens.shape[2])
    if not have_values(vectors).any():
        return None
    return _layer(sheet, _Form(pack(vectors, "int8"), components), InlineBlobs(), Pictures())


def said(name: str, when: str, space: str, facts: Mapping[str, str], warning: str | None) -> dict[str, JsonValue]:
    """Return what a page says about a layer."""
    pairs: list[JsonValue] = [[label, text] for label, text in facts.items()]
    return {"name": name, "when": when, "space": space, "facts": pairs, "warning": warning}


def told_vectors(packed: Packed, missing: NDArray[np.bool_], blobs: Blobs) -> dict[str, JsonValue]:
    """Return what a page says about the vectors of a layer.

    Args:
        packed: `[N, D]`.
        missing: Those without a value, `[N]`.
        blobs: Where the arrays go.
    """
    return {
        "dim": packed.stored.shape[1],
        "tokens": blobs.add(packed.stored),
        "scale": None if packed.scale is None else packed.scale.astype(float).tolist(),
        "offset": None if packed.offset is None else packed.offset.astype(float).tolist(),
        "nodata": blobs.add(missing.astype(np.uint8)) if missing.any() else None,
        "stored": packed.text,
    }
