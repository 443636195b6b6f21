"""TerraMind's tokenizers, built from the authors' own modules.

Source: terratorch 1.2.11, models/backbones/terramind/tokenizer/vqvae.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import Network
from rs_embed.embedders.cards.terramind import TokenModality
from rs_embed.embedders.cards.terramind_tokens import TOKENS, TokenFacts
from rs_embed.embedders.imagining.sampler import random_values
from rs_embed.embedders.runtime.kept import KeptNetworks
from rs_embed.embedders.runtime.random_numbers import own_random_numbers
from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch
from rs_embed.embedders.weights.layout import Layout
from rs_embed.embedders.weights.load import locate
from rs_embed.embedders.weights.networks import RANDOM_NOTE, RANDOM_SEED, load_picked
from rs_embed.embedders.weights.reading import read_state_dict


class _Vq(Protocol):
    """The part of the authors' tokenizers that is used here."""

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def tokens_to_embedding(self, ids: Tensor) -> Tensor: ...

    def decode_quant(self, codes: Tensor) -> Tensor: ...


class _Step(Protocol):
    prev_sample: Tensor


class _Scheduler(Protocol):
    timesteps: Tensor

    def set_timesteps(self, count: int, mode: str) -> None: ...

    def step(self, found: Tensor, time: Tensor, image: Tensor) -> _Step: ...


class _Diffusion(Protocol):
    noise_scheduler: _Scheduler

    def decoder(self, image: Tensor, time: Tensor, codes: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of one modality, ready to run."""

    facts: TokenFacts
    network: Network

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the ids `[row, col]` of an image `[band, height, width]` of standardised values or class codes."""
        module = self.network.module
        batch = pixels.to(next(module.parameters()).device)[None]
        with self.network.lock.here, torch.inference_mode(), torch.autocast(batch.device.type, enabled=False):
            _, _, ids = cast("_Vq", module).encode(batch)
        return ids[0].long().cpu()

    def decode(self, ids: Tensor, noise: Tensor | None, steps: int) -> Tensor:
        """Return the image `[band, height, width]` of ids `[row, col]`, as standardised values or class codes.

        Args:
            ids: The token ids.
            noise: Start of the diffusion, `[band, height, width]`; `None` for classes.
            steps: Number of diffusion steps.
        """
        module = self.network.module
        device = next(module.parameters()).device
        with self.network.lock.here, torch.inference_mode():
            codes = cast("_Vq", module).tokens_to_embedding(ids.to(device)[None])
            if noise is None:
                return cast("_Vq", module).decode_quant(codes).argmax(dim=1).float().cpu()
            return _denoise(cast("_Diffusion", module), codes, noise.to(device)[None], steps)[0].float().cpu()


def _denoise(module: _Diffusion, codes: Tensor, image: Tensor, steps: int) -> Tensor:
    """Run the authors' scheduler and decoder, from given noise instead of the process's random numbers."""
    scheduler = module.noise_scheduler
    scheduler.set_timesteps(steps, mode="trailing")
    for time in scheduler.timesteps:
        found = module.decoder(image, time, codes)
        image = scheduler.step(found.float(), time, image).prev_sample
    return image


_TOKENIZERS: KeptNetworks[Tokenizer] = KeptNetworks(6)
"""Up to one per modality; each takes 0.7 to 1.2 GB of memory."""


def tokenizer_for(name: TokenModality, ckpt: Path | None, *, pretrained: bool, device: torch.device) -> Tokenizer:
    """Return the tokenizer of a modality, from the cache if possible; see `load_tokenizer`."""
    return _TOKENIZERS.get(
        (name, stamp(ckpt), pretrained, device),
        lambda: load_tokenizer(TOKENS[name], ckpt=ckpt, pretrained=pretrained, device=device),
    )


def stamp(ckpt: Path | None) -> tuple[str, int, int] | None:
    """Return path, size and modification time of a file, so that a replaced file is read again."""
    if ckpt is None:
        return None
    if not ckpt.is_file():
        return str(ckpt), 0, 0
    status = ckpt.stat()
    return str(ckpt), status.st_size, status.st_mtime_ns


def load_tokenizer(facts: TokenFacts, *, ckpt: Path | None, pretrained: bool, device: torch.device) -> Tokenizer:
    """Load a tokenizer with its weights.

    Raises:
        MissingDependency: TerraTorch is not installed.
        WeightsError: The weights are missing, unreachable, corrupt, or belong to another model.
    """
    settings = LibrarySettings.read()
    if pretrained:  # before the slow import, so that errors of the file come first
        file = locate(facts.weights, ckpt=ckpt, offline=settings.offline, cache_dir=settings.cache_dir)
        state = read_state_dict(file.path)
    with own_random_numbers(RANDOM_SEED), leaving_no_trace():
        module = load_terratorch().full_models.build(facts.tokenizer)
    if not pretrained:
        random_values(module)
        return Tokenizer(facts, Network(module.to(device), f"random:{RANDOM_SEED}", RANDOM_NOTE))
    load_picked(module, file, state, Layout())
    return Tokenizer(facts, Network(module.to(device), file.id))
