"""TerraMind's decoder as a sampler of tokens, built from the authors' own modules.

The modules come from the package terratorch (extra `terratorch`), which is imported on first use. Weights are located,
hashed and loaded strictly, as for every other model. The global random number generators are left unchanged.

Source: terratorch 1.2.11, models/backbones/terramind (model/terramind_tim.py and model/terramind_generation.py show
how the parts go together; model/generate.py is the sampler).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from rs_embed.core.optional import require
from rs_embed.embedders.base import ModelRequest
from rs_embed.embedders.card import ModelCard
from rs_embed.embedders.cards.terramind_tokens import DECODER_DEPTHS, PATCH_PX, TOKENS
from rs_embed.embedders.runtime.random_numbers import own_random_numbers
from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch
from rs_embed.embedders.weights.layout import find_roots
from rs_embed.embedders.weights.networks import RANDOM_SEED
from rs_embed.encoders.terramind.embeddings import MODALITIES
from rs_embed.errors import BandMismatch, SpecError


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled."""

    seed: int = 0
    decoding_steps: int = 1
    """Number of steps in which the tokens of a modality are sampled; later steps see earlier tokens."""
    temperature: float = 1.0
    """Sampling temperature; 0 takes the most likely token."""
    top_p: float = 0.8
    """Sample from the most likely tokens with this total probability; 0 for all tokens."""
    top_k: int = 0
    """Sample from this many most likely tokens; 0 for all tokens."""


class _Sampler(Protocol):
    def generate(self, mod_dict: object, schedule: object, **options: object) -> dict[str, dict[str, Tensor]]: ...


class Imagination(nn.Module):
    """TerraMind's encoder and decoder as a sampler of tokens.

    Args:
        card: The card of a TerraMind 1.0 model.
        inputs: Modalities that may be given, by their names in the encoder.
        outputs: Modalities to generate, in this order; later ones see earlier ones.
    """

    def __init__(self, card: ModelCard, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        load_terratorch()
        from terratorch.models.backbones.terramind.model.generate import GenerationSampler

        self.outputs: tuple[str, ...] = tuple(outputs)
        with leaving_no_trace():
            self.model: nn.Module = _encoder_decoder(card, inputs, outputs)
            self.sampler: nn.Module = GenerationSampler(self.model)

    def imagine(self, given: Mapping[str, Tensor], sampling: Sampling) -> dict[str, Tensor]:
        """Generate the token ids `[row, col]` of each output, for one place.

        The result depends only on the pixels, the seed and the other sampling settings.

        Args:
            given: Standardised pixels `[band, height, width]`, ids on a grid `[row, col]`, or a sequence of ids
                `[place]`. Grids must be square, because the authors' code supports no other.
            sampling: How to sample.
        """
        from terratorch.models.backbones.terramind.model import generate
        from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO

        side = next(_rows(name, values) for name, values in given.items() if not MODALITIES[name].sequence)
        device = next(self.model.parameters()).device
        inputs = {MODALITIES[name].key: (_masked(name, values, device)) for name, values in given.items()}
        state = {
            key: generate.init_full_input_modality(entry, MODALITY_INFO, key, device) for key, entry in inputs.items()
        }
        keys = [TOKENS[name].key for name in self.outputs]
        state |= {key: generate.init_empty_target_modality(MODALITY_INFO, key, 1, side**2, device) for key in keys}
        schedule = generate.build_chained_generation_schedules(
            cond_domains=list(inputs),
            target_domains=keys,
            tokens_per_target=[side**2] * len(keys),
            autoregression_schemes=["roar"] * len(keys),
            decoding_steps=[sampling.decoding_steps] * len(keys),
            token_decoding_schedules=["linear"] * len(keys),
            temps=[float(sampling.temperature)] * len(keys),
            temp_schedules=["constant"] * len(keys),
            cfg_scales=[1.0] * len(keys),
            cfg_schedules=["constant"] * len(keys),
            cfg_grow_conditioning=True,
        )
        # `num_tokens` is left out: if passed, as the authors do, the number of decoding steps has no effect.
        options = {"seed": sampling.seed, "top_p": float(sampling.top_p), "top_k": sampling.top_k}
        with own_random_numbers(), torch.autocast(device.type, enabled=False), torch.no_grad():
            done = cast("_Sampler", self.sampler).generate(state, schedule, **options)
        return {name: done[TOKENS[name].key]["tensor"].reshape(side, side) for name in self.outputs}


def _encoder_decoder(card: ModelCard, inputs: Sequence[str], outputs: Sequence[str]) -> nn.Module:
    from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
    from terratorch.models.backbones.terramind.model.terramind import TerraMind
    from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm

    arch, targets = card.arch, [TOKENS[name].key for name in outputs]
    sources = dict.fromkeys([*(MODALITIES[name].key for name in inputs), *targets])

    def embeddings(keys: Iterable[str], kind: str) -> dict[str, nn.Module]:
        sizes = {"image_size": 224, "dim_tokens": arch["dim"]}
        return {key: MODALITY_INFO[key][kind](**{**MODALITY_INFO[key], **sizes}) for key in keys}

    biases = not arch["gated"]
    made: nn.Module = TerraMind(
        encoder_embeddings=embeddings(sources, "encoder_embedding"),
        decoder_embeddings=embeddings(targets, "decoder_embedding"),
        modality_info=MODALITY_INFO,
        dim=arch["dim"],
        encoder_depth=arch["depth"],
        decoder_depth=DECODER_DEPTHS[card.model_key],
        num_heads=arch["heads"],
        qkv_bias=biases,
        proj_bias=biases,
        mlp_bias=biases,
        norm_layer=partial(LayerNorm, eps=1e-6, bias=False),
        act_layer=nn.GELU if biases else nn.SiLU,
        gated_mlp=not biases,
    )
    return made


def _rows(name: str, values: Tensor) -> int:
    return values.shape[-2] // (PATCH_PX if MODALITIES[name].bands else 1)


def _masked(name: str, values: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Return the sampler's entry for an input: every token is given, none is to be generated."""
    batch = values.to(device)[None]
    count = batch.shape[1] if MODALITIES[name].sequence else _rows(name, values) ** 2
    given = torch.zeros(1, count, dtype=torch.bool, device=device)
    return {"tensor": batch, "input_mask": given, "target_mask": ~given, "decoder_attention_mask": given.clone()}


def require_generative(card: ModelCard, what: str) -> None:
    """Refuse a model that cannot generate.

    Raises:
        SpecError: The model is not TerraMind 1.0.
        MissingDependency: TerraTorch is not installed.
    """
    if card.model_key not in DECODER_DEPTHS:
        raise SpecError(
            f"Expected a model with a decoder for {what}, got {card.id}.",
            fix="use terramind_1_0_tiny, _small, _base or _large",
        )
    require("terratorch", extra="terratorch")


def require_all_bands(request: ModelRequest, what: str) -> None:
    """Require all bands, with which the decoder was trained.

    Raises:
        BandMismatch: The bands or their order differ from the card's.
    """
    for modality, sensor in request.inputs:
        if sensor.bands != modality.sensor.bands:
            raise BandMismatch(
                f"{what} requires all bands of {modality.name}, in the model's order.",
                wanted=", ".join(modality.sensor.bands),
                found=", ".join(sensor.bands),
                fix="leave `bands` and `sensor` out, or pass a sensor with these bands",
            )


def pick_state(state: Mapping[str, Tensor], module: nn.Module, source: str) -> dict[str, Tensor]:
    """Select the tensors of `module` from a published file. Tables and zero biases that it computes may be missing.

    Raises:
        WeightsMismatch: The file has two tensors for one name.
    """
    wanted, computed = module.state_dict(), dict(module.named_buffers())
    root = find_roots(state, wanted, source)[0]
    found = {name: state[root + name] for name in wanted if root + name in state}
    return {name: found.get(name, wanted[name]) for name in wanted if name in found or name in computed}


def random_values(module: nn.Module) -> None:
    """Set layers initialised to zero, such as the last of a diffusion decoder, to random values."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 and not name.endswith("mask_token") and not bool(parameter.any()):
                parameter.normal_(std=0.02, generator=generator)
    module.requires_grad_(False).eval()
