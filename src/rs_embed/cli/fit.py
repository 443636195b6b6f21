"""The command that makes a model of the user's own imagery: fit-mosaiks."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import rs_embed
from rs_embed.cli.completion import complete_backend, complete_collection
from rs_embed.cli.options import OFFSET_HELP, OUT, OWN, Json, OptionSet, command, either, together
from rs_embed.cli.tables import table
from rs_embed.core.bands import COLLECTIONS

_sensor = partial(typer.Option, rich_help_panel="Imagery")
_where = partial(typer.Option, rich_help_panel="Place and time (of a backend)")
_Imagery = Annotated[
    str,
    typer.Argument(
        metavar="IMAGERY",
        help="A raster, a pattern ('planet/*.tif'), or a backend: sample, stac, gee.",
        autocompletion=complete_backend,
    ),
]
_Out = Annotated[Path, typer.Argument(metavar="OUT", help="Output file, .safetensors: its path is the model's id.")]


@dataclass(frozen=True)
class Sensor(OptionSet):
    """The options that say which imagery the bank is for."""

    collection: Annotated[
        str,
        _sensor(help="Collection: a known one, or your own with --unit.", autocompletion=complete_collection),
    ]
    scale: Annotated[float, _sensor(help="Pixel size, metres.")]
    bands: Annotated[
        str | None, _sensor(help="Bands, in the order of the files, or those to fetch: red,green,blue.")
    ] = None
    only_bands: Annotated[str | None, _sensor(help="Use only these bands of the files.")] = None
    unit: Annotated[str | None, _sensor(help="Unit of the files: dn, reflectance, byte, db, power, ...")] = None
    offset: Annotated[float | None, _sensor(help=OFFSET_HELP)] = None

    def spec(self) -> "rs_embed.SensorSpec":
        """The imagery; a collection that nobody knows is registered."""
        named = (self.bands or "").split(",") if self.bands else []
        chosen = self.only_bands.split(",") if self.only_bands else named
        if not chosen:
            raise typer.BadParameter("give --bands, or --only-bands of files that name theirs")
        if self.collection not in COLLECTIONS:
            if self.unit is None:
                raise typer.BadParameter(f"{self.collection} is not known: give --unit to make it known")
            bands = tuple(rs_embed.Band(name, self.unit, self.scale) for name in named or chosen)  # type: ignore[arg-type]
            rs_embed.register_collection(rs_embed.Collection(self.collection, bands))
        return rs_embed.SensorSpec(self.collection, tuple(chosen), self.scale)

    def imagery(self, given: str) -> "str | list[rs_embed.LocalRasters]":
        """A backend, or the files to read, as objects if they have options."""
        from rs_embed.providers.rasters.folder import is_pattern, matching

        if not (is_pattern(given) or Path(given).exists()):
            return given
        named = self.bands.split(",") if self.bands else None
        return [
            rs_embed.LocalRasters(path, bands=named, unit=self.unit, offset=self.offset) for path in matching(given)
        ]


@command(
    OWN,
    "rs-embed fit-mosaiks scene.tif mine.safetensors --scale 10 \\\n"
    "  --collection COPERNICUS/S2_SR_HARMONIZED --only-bands B4,B3,B2 --unit dn",
    "rs-embed embed mine.safetensors --raster scene.tif --output grid --out map.tif",
)
def fit_mosaiks(
    imagery: _Imagery,
    out: _Out,
    sensor: Sensor,
    *,
    places: Annotated[
        Path | None, _where(help="Table of places. Omit it to use everything that the files hold.")
    ] = None,
    buffer: Annotated[float | None, _where(help="Half the side of the square around points, metres.")] = None,
    start: Annotated[str | None, _where(help="First day, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, _where(help="The day after the last, YYYY-MM-DD.")] = None,
    year: Annotated[int | None, _where(help="A whole calendar year instead.")] = None,
    filters: Annotated[int, typer.Option(help="Number of filters; each gives two features.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the random choice of patches.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a MOSAIKS model of your own imagery.

    Its filters are patches of that imagery, so nothing is trained. The other commands take the file as a model.
    """
    days = together("--start and --end", start, end)
    either("--year", year, "--start and --end", days)
    window = rs_embed.TemporalSpec.year(year) if year is not None else None
    window = rs_embed.TemporalSpec.range(*days) if days else window
    spec = sensor.spec()
    source = sensor.imagery(imagery)
    card = rs_embed.fit_mosaiks(
        source, spec, out, places=places, temporal=window, buffer_m=buffer, filters=filters, seed=seed
    )
    row = {
        "model": str(out),
        "collection": spec.collection,
        "bands": ",".join(spec.bands),
        "scale_m": spec.scale_m,
        "dim": card.dim,
    }
    if as_json:
        typer.echo(json.dumps(row, indent=2))
    else:
        OUT.print(table([row]))
