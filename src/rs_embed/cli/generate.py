"""The command that generates modalities."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rs_embed.cli.options import ERR, ONE, OUT, Json, Request, command
from rs_embed.cli.tables import table

if TYPE_CHECKING:
    from rs_embed.generation import Generated


_sampling = partial(typer.Option, rich_help_panel="Generation")


@command(
    ONE,
    "rs-embed generate terramind --outputs LULC,DEM --out maps --backend sample",
    "rs-embed generate terramind --outputs NDVI --raster scene.tif --unit dn",
)
def generate(
    request: Request,
    *,
    outputs: Annotated[
        str,
        _sampling(metavar="NAME[,NAME...]", help="S2L2A, S1GRD, S1RTC, DEM, LULC, NDVI: generated in this order."),
    ] = "LULC",
    out: Annotated[Path, _sampling(metavar="FOLDER", help="Output folder: one GeoTIFF per modality.")] = Path(
        "generated"
    ),
    seed: Annotated[int, _sampling(min=0, help="Equal seeds give equal pixels.")] = 0,
    steps: Annotated[int, _sampling(min=1, max=1000, help="Diffusion steps; more are slower.")] = 10,
    decoding_steps: Annotated[int, _sampling(min=1, max=196, help="Steps in which tokens are drawn.")] = 1,
    temperature: Annotated[float, _sampling(min=0, help="Sampling temperature; 0 takes the likeliest token.")] = 1.0,
    device: Annotated[str, _sampling(help="auto, cpu, cuda or cuda:0.")] = "auto",
    knobs: Annotated[
        list[str] | None,
        _sampling("--set", metavar="KNOB=VALUE", help="Set a knob: img, pretrained, ckpt. Repeatable."),
    ] = None,
    tokenizers: Annotated[
        list[str] | None,
        _sampling("--tokenizer", metavar="NAME=FILE", help="Tokenizer file, instead of the hub's. Repeatable."),
    ] = None,
    picture: Annotated[Path | None, _sampling(help="Save a picture, .png.")] = None,
    as_json: Json = False,
) -> None:
    """Generate missing modalities from observed ones, as GeoTIFFs.

    Uses TerraMind 1.0, and needs the extra terratorch.
    """
    import rs_embed

    if request.only_bands:
        raise typer.BadParameter("generation takes all bands: leave --only-bands out")
    _require_folder(out)
    run: Callable[..., Generated] = rs_embed.generate  # knobs are words here, whatever they mean
    generated = run(
        request.model,
        request.spatial(),
        request.temporal(),
        outputs.split(","),
        request.imagery(),
        modality=request.modality,
        seed=seed,
        steps=steps,
        decoding_steps=decoding_steps,
        temperature=temperature,
        device=device,
        tokenizer_ckpts=_pairs("--tokenizer", tokenizers),
        **_pairs("--set", knobs),
    )
    paths = generated.to_geotiff(out)
    if as_json:
        typer.echo(generated.meta.model_dump_json(indent=2))
    else:
        OUT.print(table([_row(generated, name) for name in generated]))
    for path in paths:
        ERR.print(f"wrote {path}", soft_wrap=True)
    if picture is not None:
        generated.plot(picture)
        ERR.print(f"wrote {picture}", soft_wrap=True)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in given or ()]
    if not all(equals for _, equals, _ in pairs):
        raise typer.BadParameter(f"{option} takes NAME=VALUE, got {', '.join(given or ())}")
    return {name: value for name, _, value in pairs}


def _require_folder(out: Path) -> None:
    """Refuse a folder that cannot be written before the work starts."""
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise typer.BadParameter(f"--out takes a folder that can be written, got {there}")


def _row(generated: "Generated", name: str) -> dict[str, object]:
    raster = generated[name]
    _, height, width = raster.values.shape
    return {
        "modality": name,
        "bands": len(raster.bands),
        "unit": str(raster.unit),
        "pixels": f"{height} x {width}",
        "tiles": generated.meta.tiles,
        "at limit": f"{generated.meta.at_limit[name]:.1%}",
        "weights": raster.note or generated.meta.weights[name],
    }
