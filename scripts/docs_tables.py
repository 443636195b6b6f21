"""Write the generated parts of the pages: facts, inputs, knobs, tables of models, layers, the tree of errors.

Each part stands between `<!-- begin NAME -->` and `<!-- end NAME -->` and is replaced; the prose around it is left
alone. `--check` writes nothing, and fails if a page differs from the code.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rs_embed import describe_model, errors, list_models
from rs_embed.core.settings import Knobs, LibrarySettings, RaySettings, describe_knobs
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.catalog import get_card
from rs_embed.embedders.describe import ModelDescription
from rs_embed.embedders.licences import LICENCES
from rs_embed.providers.earthengine.settings import EarthEngineSettings
from rs_embed.providers.published.settings import PublishedSettings
from rs_embed.providers.stac.settings import StacSettings

ROOT = Path(__file__).parents[1]
MODEL_PAGES: Mapping[str, tuple[str, ...]] = {
    "docs/models/thor_1_0_base.md": ("thor_1_0_tiny", "thor_1_0_small", "thor_1_0_base", "thor_1_0_large"),
    "docs/models/terramind_1_0_base.md": (
        *("terramind_1_0_tiny", "terramind_1_0_small", "terramind_1_0_base", "terramind_1_0_large"),
        "terramind_0_1_base",
    ),
    "docs/models/anysat_1_0_base.md": ("anysat_1_0_base",),
    "docs/models/galileo_1_0.md": ("galileo_1_0_nano", "galileo_1_0_tiny", "galileo_1_0_base"),
    "docs/models/prithvi_eo_2_0.md": tuple(
        f"prithvi_eo_2_0_{size}" for size in ("tiny_tl", "100_tl", "300", "300_tl", "600", "600_tl")
    ),
    "docs/models/clay_1_0_base.md": ("clay_1_0_base",),
    "docs/models/clay_1_5_large.md": ("clay_1_5_large",),
    "docs/models/dofa_1_0_base.md": ("dofa_1_0_base", "dofa_1_0_large"),
    "docs/models/copernicus_fm_base.md": ("copernicus_fm_base",),
    "docs/models/ssl4eo_s12.md": (
        *("ssl4eo_s12_vits16_dino", "ssl4eo_s12_vits16_moco"),
        *(
            f"ssl4eo_s12_{size}_{method}{sensor}"
            for method in ("mae", "fgmae")
            for sensor in ("", "_s1")
            for size in ("vits16", "vitb16", "vitl16", "vith14")
        ),
    ),
    "docs/models/softcon.md": tuple(f"softcon_{size}14{sensor}" for sensor in ("", "_s1") for size in ("vits", "vitb")),
    "docs/models/dinov3.md": ("dinov3_sat493m_large",),
    "docs/models/olmoearth.md": (
        *(f"olmoearth_1_0_{size}" for size in ("nano", "tiny", "base", "large")),
        *(f"olmoearth_1_1_{size}" for size in ("nano", "tiny", "base")),
        *(f"olmoearth_1_2_{size}" for size in ("nano", "tiny", "small", "base")),
    ),
    "docs/models/croma.md": ("croma_base", "croma_large"),
    "docs/models/panopticon.md": ("panopticon",),
    "docs/models/terrafm_base.md": ("terrafm_base",),
    "docs/models/presto.md": ("presto_1_0",),
    "docs/models/alphaearth_v1.md": ("alphaearth_v1",),
    "docs/models/tessera_v1_1.md": ("tessera_v1_1",),
    "docs/models/mosaiks_rcf.md": ("mosaiks_rcf",),
    "docs/models/geoclip_location.md": ("geoclip_location",),
    "docs/models/satclip.md": tuple(
        f"satclip_{images}_l{degrees}" for images in ("vit16", "resnet18", "resnet50") for degrees in (40, 10)
    ),
}
"""Page -> the cards that it covers; sizes of one family share a page."""
SENSORS: Mapping[str, str] = {
    "COPERNICUS/S2": "Sentinel-2",
    "COPERNICUS/S1": "Sentinel-1",
    "COPERNICUS/S3": "Sentinel-3",
    "COPERNICUS/DEM": "elevation",
    "USGS/SRTM": "elevation",
    "LANDSAT/": "Landsat",
    "MODIS/": "MODIS",
    "CNSA/GF2": "Gaofen-2",
    "IGN/": "aerial",
    "LINZ/": "aerial",
    "USDA/NAIP": "NAIP",
    "AIRBUS/SPOT": "SPOT",
    "ECMWF/": "weather",
    "IDAHO_EPSCOR/": "weather",
    "NOAA/VIIRS": "night lights",
    "GOOGLE/DYNAMICWORLD": "land cover",
    "ESA/WorldCereal": "land cover",
    "ORNL/LANDSCAN": "population",
    "GOOGLE/SATELLITE_EMBEDDING": "embeddings",
    "TESSERA/": "embeddings",
    "TERRAMESH/LULC": "land cover",
    "TERRAMESH/NDVI": "NDVI",
}
"""What a collection's name begins with -> the sensor or theme that the table of all models shows."""
KINDS: Mapping[str, str] = {"foundation model": "encoder"}
"""Kind of a card -> its shorter name in the table of all models, where it has one."""
RAN_TRAINED = ("galileo_1_0_nano", "presto_1_0", "geoclip_location", "mosaiks_rcf")
"""Models whose trained weights this project has run; `tests/data/golden_trained` has their reference outputs, except
for the bank of MOSAIKS, which is in the package."""
BLOCK = re.compile(r"(?P<begin><!-- begin (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end (?P=name) -->)", re.DOTALL)
LONGEST_LIST = 12
"""Bands named one by one; of more, the first and the last stand for all."""
MOST_COLUMNS = 6
"""Cards that stand side by side in a table of facts."""
WITHOUT_DOWNLOAD = {"bundled": "in the package", "precomputed": "none: embeddings are fetched"}
Blocks = Mapping[str, Callable[[], str]]


def pages() -> dict[str, Blocks]:
    """Page -> the blocks that it must have, each with what makes it."""
    blocks: dict[str, Blocks] = {
        "README.md": {"models": models_table},
        "docs/models/index.md": {"zoo": zoo_table},
        "docs/architecture.md": {"layers": layers},
        "docs/errors.md": {"errors": errors_tree},
        "docs/concepts.md": {"settings": settings_table},
        "docs/providers/earthengine.md": {"gee": gee_table},
        "docs/providers/stac.md": {"stac": stac_table},
        "docs/providers/published.md": {"published": published_table},
        "docs/scale.md": {"ray": ray_table},
        "docs/licences.md": {"licences": licences_table},
    }
    for page, ids in MODEL_PAGES.items():
        cards = [describe_model(model_id) for model_id in ids]
        blocks[page] = {
            "facts": lambda cards=cards: facts_table(cards),
            "inputs": lambda cards=cards: inputs_table(cards),
            "knobs": lambda cards=cards: knobs_table(cards[0]),
        }
    return blocks


def models_table() -> str:
    """One row per family: the cards that share a page."""
    rows = []
    for page, ids in MODEL_PAGES.items():
        cards = [get_card(model_id) for model_id in ids]
        described = [describe_model(model_id) for model_id in ids]
        first = described[0]
        sensors = dict.fromkeys(name for card in cards for name in _sensors(card))
        weights = WITHOUT_DOWNLOAD.get(first["weights"], _shipped(first))
        licences = " or ".join(dict.fromkeys(re.split(r":| \(", card.licence)[0] for card in cards))
        extra = f"; extra `{first['extra']}`" if first["extra"] else ""
        rows.append(
            [
                f"[{_family(described)}]({page})",
                f"`{ids[0]}`" + (f" and {len(ids) - 1} more" if len(ids) > 1 else ""),
                ", ".join(sensors) if cards[0].modalities else "coordinates",
                _span([_size(card.parameters_m) for card in sorted(cards, key=lambda card: card.parameters_m)]),
                _span([str(dim) for dim in sorted(card.dim for card in cards)]),
                (f"{weights}, " if weights else "") + licences + extra,
            ]
        )
    return _table(["Family", "Id", "Inputs", "Parameters", "Dimension", "Weights"], rows)


def _span(ordered: Sequence[str]) -> str:
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def zoo_table() -> str:
    """One row per model; `docs/models/zoo.js` filters and sorts it on the site."""
    rows = []
    for page, ids in MODEL_PAGES.items():
        title = _family([describe_model(model_id) for model_id in ids])
        family = re.sub(r"^(\S+?,?( v?\d\S*)?)( .*)?$", r"\1", title)
        for model_id in ids:
            card = get_card(model_id)
            rows.append(
                [
                    f"`{card.id}`",
                    f"[{family}]({Path(page).name})",
                    ", ".join(_sensors(card)),
                    _size(card.parameters_m),
                    str(card.dim),
                    f"{_token_m(card):g}",
                    _time(card),
                    "gated" if "access is granted" in card.licence else re.split("[: ]", card.licence)[0],
                    KINDS.get(card.kind, card.kind),
                    "yes" if card.id in RAN_TRAINED else "no",
                ]
            )
    head = ["Id", "Family", "Sensors", "Parameters", "Dim.", "Token, m", "Time", "Licence", "Kind", "Weights run"]
    return _table(head, rows)


def _sensors(card: ModelCard) -> list[str]:
    """Sensors and themes that the card takes, in the order of its modalities."""
    collections = [modality.sensor.collection for modality in card.modalities]
    found = [next(name for start, name in SENSORS.items() if one.startswith(start)) for one in collections]
    return list(dict.fromkeys(found)) or ["none"]


def _token_m(card: ModelCard) -> float:
    """Side of a token of the default grid, metres, at native pixel size."""
    if not card.modalities:
        return float(next(default for _, knob, default, _ in describe_knobs(card.knobs) if knob == "cell_m"))
    first = card.modality(card.default_names[0])
    return first.patch_px * first.sensor.scale_m


def _time(card: ModelCard) -> str:
    if not card.modalities:
        return "none"
    first = card.modality(card.default_names[0])
    if first.first_year:
        return "year"
    return "series" if first.is_series else "single"


def _family(cards: Sequence[ModelDescription]) -> str:
    """What the titles of a family begin with alike."""
    if len(cards) == 1:
        return cards[0]["title"]
    words = [card["title"].split() for card in cards]
    return " ".join(first for first, *others in zip(*words, strict=False) if {first} >= set(others)).rstrip(",")


def facts_table(cards: Sequence[ModelDescription]) -> str:
    """One column per card, or one row if there are many; all of them share the page."""
    rows = {
        "Alias": [", ".join(f"`{alias}`" for alias in card["aliases"]) or "none" for card in cards],
        "Authors' name (`model_key`)": [f"`{card['model_key']}`" for card in cards],
        "Kind": [card["kind"] for card in cards],
        "Parameters": [_size(card["parameters_m"]) for card in cards],
        "Dimension": [str(card["dim"]) for card in cards],
        "Outputs": [", ".join(card["outputs"]) for card in cards],
        '`input_prep="auto"`': [f"`{card['input_prep']}`" for card in cards],
        "Weights": [_weights(card) for card in cards],
        "Licence of the weights": [card["licence"] for card in cards],
        "Citation": [card["citation"] for card in cards],
        "Card revision": [str(card["revision"]) for card in cards],
    }
    if any(card["extra"] for card in cards):
        rows["Extra"] = [f"`eo-rs-embed[{card['extra']}]`" if card["extra"] else "none" for card in cards]
    ids = [f"`{card['id']}`" for card in cards]
    if len(cards) > MOST_COLUMNS:
        return _table(["Id", *rows], [list(row) for row in zip(ids, *rows.values(), strict=True)])
    return _table(["", *ids], [[name, *values] for name, values in rows.items()])


def inputs_table(cards: Sequence[ModelDescription]) -> str:
    """One row per modality, the default first; a last column names the cards that take it, unless all take all."""
    if not any(card["modalities"] for card in cards):
        told = ", ".join(f"`{name}`" for name in cards[0]["place_modalities"])
        return f"The only input is {told}: no imagery, no dates."
    having: dict[tuple[str, ...], list[str]] = {row: [] for card in cards for row in _inputs(card)}
    for row, ids in having.items():
        ids += [f"`{card['id']}`" for card in cards if row in _inputs(card)]
    head = [
        "Modality",
        "Collection",
        "Bands, in order",
        "Unit",
        "Pixel, m",
        "Input side, px",
        "Patch, px",
        "Nodata fill",
    ]
    if all(len(ids) == len(cards) for ids in having.values()):
        return _table(head, having)
    models = [", ".join(ids) if len(ids) < len(cards) else "all" for ids in having.values()]
    return _table([*head, "Models"], [[*row, names] for row, names in zip(having, models, strict=True)])


def _inputs(card: ModelDescription) -> list[tuple[str, ...]]:
    return [
        (
            f"`{modality['name']}`",
            f"`{modality['collection']}`",
            f"{len(modality['bands'])}: {_bands(modality['bands'])}",
            ", ".join(dict.fromkeys(modality["units"])),
            f"{modality['scale_m']:g}",
            f"{modality['image_px']}",
            f"{modality['patch_px']}",
            f"{modality['fill_value']}",
        )
        for modality in card["modalities"]
    ]


def knobs_table(card: ModelDescription) -> str:
    """One row per knob."""
    rows = [
        [f"`{knob['variable']}`", f"`{knob['keyword']}`", f"`{knob['default']}`", knob["effect"]]
        for knob in card["knobs"]
    ]
    return _table(["Variable", "Keyword", "Default", "Effect"], rows)


def settings_table() -> str:
    """The variables that concern every model."""
    return _variables(LibrarySettings)


def licences_table() -> str:
    """One row per known licence."""
    rows = [
        [f"`{one.id}`", one.kind, "yes" if one.must_be_accepted else "no", one.forbids] for one in LICENCES.values()
    ]
    return _table(["Id", "Class", "Must be accepted", "What it forbids or requires"], rows)


def gee_table() -> str:
    """The variables of the Earth Engine backend."""
    return _variables(EarthEngineSettings)


def stac_table() -> str:
    """The variables of the STAC backend."""
    return _variables(StacSettings)


def published_table() -> str:
    """The variables of the backend for published embeddings."""
    return _variables(PublishedSettings)


def ray_table() -> str:
    """The variables of the Ray engine."""
    return _variables(RaySettings)


def _variables(family: type[Knobs]) -> str:
    rows = [[f"`{variable}`", f"`{default}`", effect] for variable, _, default, effect in describe_knobs(family)]
    return _table(["Variable", "Default", "Effect"], rows)


def errors_tree() -> str:
    """The tree that the docstring of `rs_embed.errors` draws."""
    _, tree = (errors.__doc__ or "").split("\n\n", maxsplit=1)
    return f"```text\n{tree.rstrip()}\n```"


def layers() -> str:
    """The layers that the import linter checks, highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return "\n".join(["```text", *(row.replace(" :", ",") for row in rows), "```"])


def _size(millions: float) -> str:
    if millions == 0:
        return "none"
    return f"{millions:g} M" if millions >= 1 else f"{millions * 1000:g} k"


def _weights(card: ModelDescription) -> str:
    return WITHOUT_DOWNLOAD.get(card["weights"], card["weights"].partition(" (")[0])


def _shipped(card: ModelDescription) -> str | None:
    """Which package has the weights, where one has."""
    package = re.match(r"package (\S+) /", card["weights"])
    return f"in the package `{package[1]}`" if package else None


def _bands(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= LONGEST_LIST else f"{names[0]} ... {names[-1]}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def filled(text: str, blocks: Blocks) -> str:
    """The page with every block as its maker writes it.

    Raises:
        ValueError: The page lacks a block, or has one that nobody makes.
    """
    found = [match["name"] for match in BLOCK.finditer(text)]
    if sorted(found) != sorted(blocks):
        raise ValueError(f"wanted the blocks {', '.join(blocks)} once each, found {', '.join(found) or 'none'}")
    return BLOCK.sub(lambda match: f"{match['begin']}{blocks[match['name']]()}\n{match['end']}", text)


def problems(root: Path, *, write: bool) -> list[str]:
    """What is wrong with the pages under `root`; stale pages are rewritten if `write`."""
    covered = {model_id for ids in MODEL_PAGES.values() for model_id in ids}
    found = [
        f"{model_id} has no page: name one in MODEL_PAGES of scripts/docs_tables.py"
        for model_id in list_models()
        if model_id not in covered
    ]
    for name, blocks in pages().items():
        page = root / name
        if not page.is_file():
            found.append(f"{name} does not exist")
            continue
        text = page.read_text(encoding="utf-8")
        try:
            wanted = filled(text, blocks)
        except ValueError as error:
            found.append(f"{name}: {error}")
            continue
        if wanted != text and write:
            page.write_text(wanted, encoding="utf-8")
            print(f"wrote {name}")
        elif wanted != text:
            found.append(f"{name} is not what the code says: run python scripts/docs_tables.py")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all pages are as they should be (or now are), else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    options = parser.parse_args(arguments)
    found = problems(ROOT, write=not options.check)
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
