"""MOSAIKS random convolutional features: a baseline without download, with bundled filters or the user's own."""

from collections.abc import Mapping
from functools import cached_property
from importlib.resources import as_file, files
from typing import cast, final

import torch
from safetensors.torch import load_file

from rs_embed.core.chip import Chip
from rs_embed.core.hashing import sha256_of
from rs_embed.core.settings import LibrarySettings
from rs_embed.embedders.base import Embedder, ModelInput, ModelRequest, Network, Readout
from rs_embed.embedders.cards.mosaiks import MosaiksKnobs
from rs_embed.embedders.prepare.framing import Frame, InputGeometry, cut_windows
from rs_embed.embedders.prepare.normalize import to_image, z_score
from rs_embed.embedders.weights.load import load_strict, locate
from rs_embed.embedders.weights.reading import read_state_dict
from rs_embed.encoders.rcf import RcfEncoder
from rs_embed.encoders.tokens import Tokens

BANK = "mosaiks_rcf_bank.safetensors"


@final
class MosaiksEmbedder(Embedder):
    """One convolution with real image patches as filters, averaged over cells of `patch_size` pixels."""

    @staticmethod
    def build(request: ModelRequest, settings: LibrarySettings) -> Network:
        """Read the bundled filter bank, or the file that the card names.

        Raises:
            WeightsError: The file is missing, or was modified after the card was made.
        """
        with torch.device("meta"):  # this also leaves the caller's random generator alone
            encoder = RcfEncoder(**request.card.arch)
        if request.card.weights is None:
            with as_file(files("rs_embed") / "data" / BANK) as path:
                bank, weights_id = load_file(path), f"bundled:{BANK}#sha256:{sha256_of(path)}"
        else:
            file = locate(request.card.weights, ckpt=None, offline=True, cache_dir=None)
            bank, weights_id = read_state_dict(file.path), file.id
        load_strict(encoder, {name: bank[name] for name in ("weight", "bias")}, source=weights_id)
        return Network(encoder, weights_id)

    @property
    def _knobs(self) -> MosaiksKnobs:
        return cast("MosaiksKnobs", self.request.knobs)

    def geometry(self) -> InputGeometry:
        """Accept windows of whole cells, in any shape."""
        patch_px = self._knobs.patch_size
        image_px = max(1, self._knobs.img // patch_px) * patch_px
        return InputGeometry(image_px, lattice_px=patch_px, square=False, patch_px=patch_px)

    def prepare(self, chips: Mapping[str, Chip], frame: Frame) -> list[ModelInput]:
        """Standardise with the statistics of the patches on which the bank was fitted."""
        modality, sensor = self.request.inputs[0]
        image = to_image(chips[modality.name], modality, sensor, z_score(modality, sensor, clamp_sigma=None))
        return [ModelInput({"image": window}) for window in cut_windows(image, frame)]

    def encode(self, batch: ModelInput) -> Tokens:
        """Return one token per cell, with `2 * filters` features."""
        encoder = cast("RcfEncoder", self.network.module)
        return encoder.forward(batch.tensors["image"], patch_px=self._knobs.patch_size)

    @cached_property
    def readout(self) -> Readout:
        """One grid of cells, whose tokens do not depend on their position."""
        return Readout(self.request.card.dim, placed=False)

    @property
    def normalization(self) -> str:
        """Name of the source of mean and std."""
        return "bank_stats"
