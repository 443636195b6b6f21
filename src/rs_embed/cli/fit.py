"""The command that makes a model of the user's own imagery: fit-mosaiks."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import rs_embed
from rs_embed.cli.options import OUT, OptionSet, command, either, together
from rs_embed.cli.tables import table
from rs_embed.core.bands import COLLECTIONS

_sensor = partial(typer.Option, rich_help_panel="Which imagery")
_where = partial(typer.Option, rich_help_panel="Where and when (of a backend)")
_Imagery = Annotated[
    str,
    typer.Argument(metavar="IMAGERY", help="A raster, a pattern as 'planet/*.tif', or a backend: gee, stac, sample."),
]
_Out = Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors: a model by its path.")]


@dataclass(frozen=True)
class Sensor(OptionSet):
    """The options that say which imagery the bank is for."""

    collection: Annotated[str, _sensor(help="Its name: of a known one, or of your own, with --unit.")]
    scale: Annotated[float, _sensor(help="Pixel size, metres.")]
    bands: Annotated[str | None, _sensor(help="In the order of the files, or those to fetch: red,green,blue")] = None
    only_bands: Annotated[str | None, _sensor(help="Only these of them.")] = None
    unit: Annotated[str | None, _sensor(help="Of the files: dn, reflectance, byte, db, power, ...")] = None
    offset: Annotated[float | None, _sensor(help="Added to the DN of the files; -1000 for scenes since 2022.")] = None

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
        """What is read; files as objects where something is said of them."""
        from rs_embed.providers.rasters.folder import is_pattern, matching

        if not (is_pattern(given) or Path(given).exists()):
            return given
        named = self.bands.split(",") if self.bands else None
        return [
            rs_embed.LocalRasters(path, bands=named, unit=self.unit, offset=self.offset) for path in matching(given)
        ]


@command(
    "rs-embed fit-mosaiks 'planet/*.tif' planet.safetensors --collection PLANET/PSSCENE --scale 3 "
    "--bands blue,green,red,nir --unit reflectance",
    "rs-embed fit-mosaiks gee landsat.safetensors --collection LANDSAT/LC09/C02/T1_L2 --scale 30 "
    "--bands SR_B2,SR_B3,SR_B4,SR_B5 --places plots.csv --buffer 4000 --year 2023",
    "rs-embed embed planet.safetensors --raster planet/today.tif --output grid --out map.tif",
)
def fit_mosaiks(
    imagery: _Imagery,
    out: _Out,
    sensor: Sensor,
    *,
    places: Annotated[Path | None, _where(help="Table of places; left out, all that the files hold.")] = None,
    buffer: Annotated[float | None, _where(help="Half of the side around points, metres.")] = None,
    start: Annotated[str | None, _where(help="First day, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, _where(help="The day after the last.")] = None,
    year: Annotated[int | None, _where(help="A whole year instead.")] = None,
    filters: Annotated[int, typer.Option(help="Each gives two features.")] = 512,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Make a model of your own imagery, without training: MOSAIKS, with pieces of it as filters."""
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
    OUT.print(table([row]))
