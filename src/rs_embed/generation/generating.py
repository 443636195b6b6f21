"""`generate`: from the modalities of a place to others of the same place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from rs_embed.core.bands import did_you_mean
from rs_embed.core.checks import require_choice, require_number, require_whole
from rs_embed.core.specs import SpatialSpec, TemporalSpec
from rs_embed.embedders.cards.terramind import TokenModality
from rs_embed.embedders.cards.terramind_tokens import DECODER_DEPTHS, MAP_NAMES, MAPS
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import KnobError, SpecError, WeightsNotFound
from rs_embed.generation.result import Generated
from rs_embed.pipeline.request import Backend, EmbeddingRequest, KnobValue, Modalities, Sensors
from rs_embed.plan import Dates, InputArrays, Plan, arrays_of, named

if TYPE_CHECKING:
    from rs_embed.embedders.base import ModelRequest
    from rs_embed.embedders.card import ModelCard

KNOBS = ("img", "pretrained", "ckpt", "model_key", "coords_tokenizer", "min_valid_fraction")
"""Of the model's, those that generation has; values are always standardised as in the training."""


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
    """Modalities of a place that were not observed, imagined from those that were (TerraMind 1.0).

    A large region is done in tiles; memory holds the whole region once for each output.

    Args:
        model_id: `terramind_1_0_tiny`, `_small`, `_base` or `_large`.
        spatial: Where; `None` takes everything that a raster, the sample or `input_chw` holds.
        temporal: Which days of imagery, half-open.
        output_modalities: S2L2A, S1GRD, S1RTC, DEM, LULC, NDVI, in the order in which they are made: each sees those
            before it. A list, or names joined by "+".
        backend: As of `get_embedding`.
        modality: What the model is given, such as "S2L2A+S1GRD"; any of the card's, LULC and NDVI.
        sensor: Other imagery than the card's default, with the same bands.
        input_chw: Your own pixels instead of a backend.
        dates: When the frames of `input_chw` were acquired.
        seed: Equal seeds give equal pixels on one machine.
        steps: Of the diffusion that turns tokens into pixels, 1 to 1,000; land cover needs none. More is slower.
        decoding_steps: In how many steps the tokens of a modality are drawn; later ones see earlier ones.
        temperature: Of the draw; 0 takes the likeliest token.
        top_p: Draw among the likeliest tokens that together have this probability; 0 draws among all.
        top_k: Draw among so many of the likeliest; 0 draws among all.
        tokenizer_ckpts: Modality -> file of its tokenizer, instead of the hub's.
        device: "auto", "cpu", "cuda" or "cuda:0".
        progress: Show a bar on a terminal or in a notebook.
        **knobs: Of the model: `img` is the side of a tile, `pretrained=False` takes random weights and says so; `ckpt`,
            `model_key`, `coords_tokenizer`, `min_valid_fraction` as for embeddings.

    Raises:
        MissingDependency: The extra `terratorch` is not installed.
        RSEmbedError: One typed error per thing that can be wrong; see `rs_embed.errors`.
    """
    from rs_embed.embedders.imagining.sampler import Sampling, require_all_bands, require_generative  # loads torch
    from rs_embed.generation.work import GenerationOptions, work
    from rs_embed.pipeline.plan import on_grids

    outputs = _outputs(output_modalities)
    card = _with_maps(get_card(model_id))
    require_generative(card, "generation")
    request = EmbeddingRequest(
        model_id=card,
        knobs={**_knobs_of_generation(knobs), "normalize": "terramind_stats"},
        backend=backend,
        sensor=sensor,
        modality=named(modality, input_chw),
        input_prep="tile",
        device=device,
    )
    plan = Plan.laid(request, [spatial], [temporal], arrays_of(input_chw, backend, dates, None))
    require_generative(plan.model.card, "generation")  # another one, where model_key names it
    both = [name for name in MAP_NAMES if name in plan.model.modality_names and name in outputs]
    if both:
        raise SpecError(f"Expected {both[0]} given or generated, got both.", fix="leave it out of one of them")
    require_all_bands(plan.model, "Generation")
    sampling = Sampling(
        require_whole("seed", seed, 0, 2**31),
        require_whole("decoding_steps", decoding_steps, 1, 196),
        require_number("temperature", temperature, 0, 100, "0 takes the likeliest token, 1 draws as trained"),
        require_number("top_p", top_p, 0, 1, "0 draws among all tokens"),
        require_whole("top_k", top_k, 0, 15360),
    )
    steps = require_whole("steps", steps, 1, 1000)
    options = GenerationOptions(outputs, sampling, steps, _tokenizer_files(tokenizer_ckpts or {}, plan.model, outputs))
    return work(on_grids(plan.job, plan.items), options, progress=progress)


def _outputs(names: str | Sequence[str]) -> tuple[TokenModality, ...]:
    if not isinstance(names, str | Sequence):
        raise SpecError(f"Expected names of output modalities, got {names!r}.", fix='for example ["LULC", "DEM"]')
    chosen = tuple(names.split("+")) if isinstance(names, str) else tuple(names)
    if not chosen or len(set(chosen)) < len(chosen):
        raise SpecError(f"Expected each output modality once, got {chosen}.", fix='for example ["LULC", "DEM"]')
    for name in chosen:
        require_choice("output_modalities", name, get_args(TokenModality))
    return cast("tuple[TokenModality, ...]", chosen)


def _tokenizer_files(
    ckpts: Mapping[str, str | Path], model: "ModelRequest", outputs: Sequence[TokenModality]
) -> Mapping[TokenModality, Path]:
    used = (*outputs, *(name for name in MAP_NAMES if name in model.modality_names))
    if not isinstance(ckpts, Mapping):
        raise SpecError(f"Expected a file for each modality, got {ckpts!r}.", fix=f'{{"{used[0]}": "tokenizer.pt"}}')
    unused = [name for name in ckpts if name not in used]
    if unused:
        raise SpecError(
            f"Expected tokenizers of {', '.join(used)}, got one of {', '.join(unused)}.",
            fix="name the modalities that are generated, or given as a map",
        )
    files = {name: Path(ckpts[name]).expanduser() for name in used if name in ckpts}
    for name, path in files.items():
        if not path.is_file():
            raise WeightsNotFound(f"There is no tokenizer of {name} at {str(path)!r}.", fix="correct the path")
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


def _with_maps(card: "ModelCard") -> "ModelCard":
    return replace(card, modalities=(*card.modalities, *MAPS)) if card.model_key in DECODER_DEPTHS else card
