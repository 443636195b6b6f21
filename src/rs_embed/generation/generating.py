"""`generate`: generate modalities of a place from others of the same place."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import require_choice, require_number, require_whole
from rs_embed.core.specs import SpatialSpec, TemporalSpec
from rs_embed.embedders.cards.terramind import MAP_NAMES, TokenModality
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import KnobError, SpecError, WeightsNotFound
from rs_embed.generation.result import Generated
from rs_embed.pipeline.request import Backend, EmbeddingRequest, KnobValue, Modalities, Sensors
from rs_embed.plan import Dates, InputArrays, Plan, arrays_of, named

if TYPE_CHECKING:
    from rs_embed.embedders.base import ModelRequest
    from rs_embed.embedders.card import ModelCard

KNOBS = ("img", "pretrained", "ckpt", "model_key", "coords_tokenizer", "min_valid_fraction")
"""The model's knobs that generation accepts. Values are always standardised as in training."""


def generate(
    model_id: "str | ModelCard",
    spatial: SpatialSpec | None = None,
    temporal: TemporalSpec | None = None,
    output_modalities: str | Sequence[str] = ("LULC",),
    backend: Backend = "auto",
    *,
    modality: Modalities = None,
    sensor: Sensors = None,
    input_chw: InputArrays | None = None,
    dates: Dates | None = None,
    seed: int = 0,
    steps: int = 10,
    decoding_steps: int = 1,
    temperature: float = 1.0,
    top_p: float = 0.8,
    top_k: int = 0,
    tokenizer_ckpts: Mapping[str, str | Path] | None = None,
    device: str = "auto",
    progress: bool = True,
    **knobs: KnobValue,
) -> Generated:
    """Generate missing modalities of a place from the available ones, with TerraMind 1.0.

    A large region is processed in tiles; memory holds the whole region once for each output.

    Args:
        model_id: `terramind_1_0_tiny`, `_small`, `_base` or `_large`.
        spatial: The place; `None` for everything that a raster, the sample or `input_chw` holds.
        temporal: The days of imagery, half-open.
        output_modalities: Modalities to generate, out of S2L2A, S1GRD, S1RTC, DEM, LULC and NDVI: a list, or names
            joined by "+". They are generated in this order, and each depends on those before it.
        backend: Source of imagery, as for `get_embedding`.
        modality: Modalities to give to the model, such as "S2L2A+S1GRD": any of the card's, LULC and NDVI.
        sensor: Imagery other than the card's default, with the same bands.
        input_chw: Your own pixels instead of a backend.
        dates: Acquisition dates of the frames of `input_chw`.
        seed: Seed of the random numbers. Equal seeds give equal pixels on the same machine.
        steps: Number of diffusion steps from tokens to pixels, 1 to 1,000; not used for land cover. More are slower.
        decoding_steps: Number of steps in which the tokens of a modality are sampled; later steps see earlier tokens.
        temperature: Sampling temperature; 0 takes the most likely token.
        top_p: Sample from the most likely tokens with this total probability; 0 for all tokens.
        top_k: Sample from this many most likely tokens; 0 for all tokens.
        tokenizer_ckpts: Modality -> file of its tokenizer, instead of the hub's.
        device: "auto", "cpu", "cuda" or "cuda:0".
        progress: Whether to show a progress bar on a terminal or in a notebook.
        **knobs: Knobs of the model. `img` is the side of a tile in pixels. `pretrained=False` uses random weights,
            and the result records it. `ckpt`, `model_key`, `coords_tokenizer` and `min_valid_fraction` are as for
            embeddings.

    Returns:
        The rasters by modality, with tokens and metadata.

    Raises:
        MissingDependency: The extra `terratorch` is not installed.
        RSEmbedError: The request, the imagery or the weights are invalid; see `rs_embed.errors` for the classes.
    """
    from rs_embed.embedders.imagining.sampler import Sampling, require_all_bands, require_generative  # loads torch
    from rs_embed.generation.work import GenerationOptions, work
    from rs_embed.pipeline.plan import on_grids

    outputs = _outputs(output_modalities)
    card = get_card(model_id)
    require_generative(card, "generation")
    request = EmbeddingRequest(
        model_id=card,
        knobs={**_knobs_of_generation(knobs), **_files_of_maps(tokenizer_ckpts), "normalize": "terramind_stats"},
        backend=backend,
        sensor=sensor,
        modality=named(modality, input_chw),
        input_prep="tile",
        device=device,
    )
    plan = Plan.laid(request, [spatial], [temporal], arrays_of(input_chw, backend, dates, None))
    require_generative(plan.model.card, "generation")  # model_key may have selected another card
    both = [name for name in MAP_NAMES if name in plan.model.modality_names and name in outputs]
    if both:
        raise SpecError(
            f"Expected {both[0]} to be given or generated, got both.",
            fix="leave it out of modality or of output_modalities",
        )
    require_all_bands(plan.model, "Generation")
    sampling = Sampling(
        require_whole("seed", seed, 0, 2**31),
        require_whole("decoding_steps", decoding_steps, 1, 196),
        require_number("temperature", temperature, 0, 100, "0 takes the most likely token, 1 samples as trained"),
        require_number("top_p", top_p, 0, 1, "0 samples from all tokens"),
        require_whole("top_k", top_k, 0, 15360),
    )
    steps = require_whole("steps", steps, 1, 1000)
    options = GenerationOptions(outputs, sampling, steps, _tokenizer_files(tokenizer_ckpts or {}, plan.model, outputs))
    return work(on_grids(plan.job, plan.items), options, progress=progress)


def _outputs(names: str | Sequence[str]) -> tuple[TokenModality, ...]:
    if not isinstance(names, str | Sequence):
        raise SpecError(f"Expected names of output modalities, got {names!r}.", fix='pass for example ["LULC", "DEM"]')
    chosen = tuple(names.split("+")) if isinstance(names, str) else tuple(names)
    if not chosen or len(set(chosen)) < len(chosen):
        raise SpecError(f"Expected each output modality once, got {chosen}.", fix='pass for example ["LULC", "DEM"]')
    for name in chosen:
        require_choice("output_modalities", name, get_args(TokenModality))
    return cast("tuple[TokenModality, ...]", chosen)


def _tokenizer_files(
    ckpts: Mapping[str, str | Path], model: "ModelRequest", outputs: Sequence[TokenModality]
) -> Mapping[TokenModality, Path]:
    used = (*outputs, *(name for name in MAP_NAMES if name in model.modality_names))
    if not isinstance(ckpts, Mapping):
        raise SpecError(
            f"Expected a mapping of modality to file, got {ckpts!r}.", fix=f'pass {{"{used[0]}": "tokenizer.pt"}}'
        )
    unused = [name for name in ckpts if name not in used]
    if unused:
        raise SpecError(
            f"Expected tokenizers of {', '.join(used)}, got one of {', '.join(unused)}.",
            fix="pass tokenizers only for modalities that are generated or given as a map",
        )
    files = {name: Path(ckpts[name]).expanduser() for name in used if name in ckpts}
    for name, path in files.items():
        if not path.is_file():
            raise WeightsNotFound(
                f"Expected a tokenizer of {name} at {str(path)!r}, got no such file.", fix="correct the path"
            )
    return files


def _knobs_of_generation(knobs: Mapping[str, KnobValue]) -> Mapping[str, KnobValue]:
    for name in knobs:
        if name not in KNOBS:
            raise KnobError(
                f"Expected a knob that generation has, got {name!r}.",
                known=", ".join(KNOBS),
                fix=did_you_mean(name, KNOBS),
            )
    return knobs


def _files_of_maps(ckpts: Mapping[str, str | Path] | None) -> dict[str, str]:
    """Return the knobs of tokenizers that read inputs; `_tokenizer_files` checks the files."""
    known = ckpts if isinstance(ckpts, Mapping) else {}
    return {f"{name.lower()}_tokenizer": str(known[name]) for name in MAP_NAMES if name in known}
