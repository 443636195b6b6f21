"""TerraMind's modalities and their embeddings: pixels, token ids on a grid, and token ids in a sequence.

Source: IBM/terratorch 1.2.11, models/backbones/terramind (model/encoder_embeddings.py, model/modality_info.py and
terramind_register.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.kernels.linear import linear
from rs_embed.encoders.layers import CachesFromWeights, LRUCache, sincos_1d
from rs_embed.errors import BandMismatch, InputError

PATCH_PX = 16
"""Side of a patch in pixels."""

SEQUENCE_POSITIONS = 512
"""Rows in the position table of a sequence; a coordinate needs four of them."""

TABLES_KEPT = 4
"""Number of resized position tables that each modality caches (base, 14 x 13 patches: 0.6 MB each)."""


@dataclass(frozen=True)
class TerraMindModality:
    """One kind of input: pixels if it has bands, else token ids."""

    key: str
    """Name in the checkpoint."""
    bands: tuple[str, ...] = ()
    """Channels in the checkpoint's order."""
    vocabulary: int = 0
    """Number of token ids."""
    sequence: bool = False
    """Whether ids form a sequence instead of a grid on the ground."""


_S2L1C_BANDS = (
    *("COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3"),
    *("NIR_BROAD", "NIR_NARROW", "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2"),
)
_S2L2A_BANDS = tuple(band for band in _S2L1C_BANDS if band != "CIRRUS")
_TOKENIZER_IDS = 15360

MODALITIES = {
    "S2L2A": TerraMindModality("untok_sen2l2a@224", _S2L2A_BANDS),
    "S2L1C": TerraMindModality("untok_sen2l1c@224", _S2L1C_BANDS),
    "S1GRD": TerraMindModality("untok_sen1grd@224", ("VV", "VH")),
    "S1RTC": TerraMindModality("untok_sen1rtc@224", ("VV", "VH")),
    "DEM": TerraMindModality("untok_dem@224", ("DEM",)),
    "RGB": TerraMindModality("untok_sen2rgb@224", ("RED", "GREEN", "BLUE")),
    "LULC": TerraMindModality("tok_lulc@224", vocabulary=4375),
    "NDVI": TerraMindModality("tok_ndvi@224", vocabulary=_TOKENIZER_IDS),
    "Coordinates": TerraMindModality("coords", vocabulary=30000, sequence=True),
    "tok_S2L2A": TerraMindModality("tok_sen2l2a@224", vocabulary=_TOKENIZER_IDS),
    "tok_S1GRD": TerraMindModality("tok_sen1grd@224", vocabulary=_TOKENIZER_IDS),
    "tok_S1RTC": TerraMindModality("tok_sen1rtc@224", vocabulary=_TOKENIZER_IDS),
    "tok_DEM": TerraMindModality("tok_dem@224", vocabulary=_TOKENIZER_IDS),
}
"""Every modality by its public name."""

V1_MODALITIES = ("S2L2A", "S2L1C", "S1GRD", "S1RTC", "DEM", "RGB", "LULC", "NDVI", "Coordinates")
"""The modalities that the encoders of TerraMind 1.0 take."""


def sincos_2d(side: int, dim: int) -> Float[Tensor, "1 position dim"]:
    """Encode the cells of a square grid, row by row: the row in the first half of the channels, then the column.

    Args:
        side: Cells along each side.
        dim: Token width, a multiple of 4.
    """
    axis = torch.stack([sincos_1d(float(place), dim // 2) for place in range(side)])
    rows, cols = axis[:, None].expand(side, side, -1), axis.expand(side, side, -1)
    return torch.cat([rows, cols], dim=2).flatten(0, 1)[None]


def sincos_row(dim: int) -> Float[Tensor, "1 position dim"]:
    """Encode the positions in a sequence."""
    return torch.stack([sincos_1d(float(place), dim) for place in range(SEQUENCE_POSITIONS)])[None]


class ModalityEmbedding(CachesFromWeights):
    """The base of all embeddings: a table of positions, and a vector of the modality.

    Args:
        dim: Token width.
        positions: Rows of the table, which the encoder fills.
    """

    pos_emb: Float[Tensor, "1 position dim"]

    def __init__(self, *, dim: int, positions: int) -> None:
        super().__init__()
        self.mod_emb: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("pos_emb", torch.zeros(1, positions, dim))
        self._tables: LRUCache[Tensor] = LRUCache(TABLES_KEPT)

    def drop_cached(self) -> None:
        """Drop the resized tables."""
        self._tables.clear()

    def code_grid(self, height: int, width: int) -> Float[Tensor, "1 row col dim"]:
        """Return the position and modality codes to add to the tokens of a grid."""

        def make() -> Tensor:
            # A tensor made in inference mode could not serve training later.
            with torch.inference_mode(False):
                return resize_table(self.pos_emb, height, width)

        return self._tables.get((height, width), make) + self.mod_emb


def resize_table(table: Float[Tensor, "1 position dim"], height: int, width: int) -> Float[Tensor, "1 row col dim"]:
    """Resize the position table of a square grid to another grid (bicubic, half-pixel centres, no antialiasing)."""
    side = math.isqrt(table.shape[1])
    grid = table.view(1, side, side, -1)
    if (height, width) == (side, side):
        return grid
    resized = F.interpolate(grid.permute(0, 3, 1, 2), size=(height, width), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


class PixelEmbedding(ModalityEmbedding):
    """A linear layer from the pixels of a patch to its token.

    Args:
        name: Modality, for messages.
        dim: Token width.
        side: Patches along each side of the square for which the position table is computed.
        bands: Channels of the checkpoint, in its order.
    """

    def __init__(self, *, name: str, dim: int, side: int, bands: tuple[str, ...]) -> None:
        super().__init__(dim=dim, positions=side**2)
        self.name = name
        self.bands = bands
        self.proj: nn.Linear = nn.Linear(PATCH_PX**2 * len(bands), dim, bias=False)

    def forward(
        self, images: Float[Tensor, "batch band height width"], bands: Sequence[str] | None = None
    ) -> Float[Tensor, "batch row col dim"]:
        """Embed every patch.

        Args:
            images: Standardised; height and width are multiples of 16 px.
            bands: Bands of the channels, if these are not all of the checkpoint's in its order.

        Raises:
            BandMismatch: A band is unknown, or the channels do not match `bands`.
            InputError: Height or width is not a multiple of 16 px.
        """
        wanted = self.bands if bands is None else tuple(bands)
        kernel = self._kernel(wanted)
        self._check(images, wanted)
        cut = images.unflatten(3, (-1, PATCH_PX)).unflatten(2, (-1, PATCH_PX))
        patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3)  # row in the patch, column in it, band
        tokens = linear(patches, kernel)
        return tokens + self.code_grid(tokens.shape[1], tokens.shape[2])

    def _kernel(self, bands: tuple[str, ...]) -> Float[Tensor, "dim pixel"]:
        """Take the columns of these bands."""
        if bands == self.bands:
            return self.proj.weight
        unknown = [band for band in bands if band not in self.bands]
        if unknown or not bands or len(set(bands)) < len(bands):
            raise BandMismatch(
                f"Expected known bands of {self.name}, each once, got others.",
                unknown=", ".join(unknown) or None,
                bands=", ".join(bands) or "none",
                fix=f"choose from {', '.join(self.bands)}",
            )
        columns = [self.bands.index(band) for band in bands]
        by_band = self.proj.weight.view(-1, PATCH_PX**2, len(self.bands))
        return by_band[:, :, columns].flatten(1)

    def _check(self, images: Float[Tensor, "batch band height width"], bands: Sequence[str]) -> None:
        channels, height, width = images.shape[1:]
        if channels != len(bands):
            raise BandMismatch(
                f"Expected {len(bands)} channels of {self.name}, got {channels}.",
                bands=", ".join(bands),
                fix="pass these bands, or list the bands of the images in `bands`",
            )
        if height % PATCH_PX or width % PATCH_PX or not height * width:
            fits = [max(1, round(side / PATCH_PX)) * PATCH_PX for side in (height, width)]
            raise InputError(
                f"Expected sides of {self.name} as multiples of {PATCH_PX} px, got {height} x {width} px.",
                fix=f"crop or pad for example to {fits[0]} x {fits[1]} px",
            )


class IdEmbedding(ModalityEmbedding):
    """A learned vector per token id.

    Args:
        dim: Token width.
        positions: Rows of the position table.
        vocabulary: Number of ids.
    """

    def __init__(self, *, dim: int, positions: int, vocabulary: int) -> None:
        super().__init__(dim=dim, positions=positions)
        # Not initialised as in nn.Embedding: on the meta device that alone takes 3.5 s of loading parts of torch.
        self.token_emb: nn.Embedding = nn.Embedding.from_pretrained(torch.zeros(vocabulary, dim), freeze=False)


class ImageIdEmbedding(IdEmbedding):
    """Ids of an image tokenizer, one per patch."""

    def forward(self, ids: Int[Tensor, "batch row col"]) -> Float[Tensor, "batch row col dim"]:
        """Embed every id."""
        tokens: Tensor = self.token_emb(ids)
        return tokens + self.code_grid(ids.shape[1], ids.shape[2])


class SequenceEmbedding(IdEmbedding):
    """Ids of a text tokenizer, which lie on no grid."""

    def forward(self, ids: Int[Tensor, "batch place"]) -> Float[Tensor, "batch place dim"]:
        """Embed every id."""
        tokens: Tensor = self.token_emb(ids)
        return tokens + (self.pos_emb[:, : ids.shape[1]] + self.mod_emb)


def build_embedding(name: str, *, dim: int, side: int) -> ModalityEmbedding:
    """Build the embedding of a modality.

    Args:
        name: One of `MODALITIES`.
        dim: Token width.
        side: Patches along each side of the square for which position tables are computed.
    """
    modality = MODALITIES[name]
    if modality.bands:
        return PixelEmbedding(name=name, dim=dim, side=side, bands=modality.bands)
    if modality.sequence:
        return SequenceEmbedding(dim=dim, positions=SEQUENCE_POSITIONS, vocabulary=modality.vocabulary)
    return ImageIdEmbedding(dim=dim, positions=side**2, vocabulary=modality.vocabulary)


def position_table(name: str, *, dim: int, side: int) -> Float[Tensor, "1 position dim"]:
    """Compute the position table of a modality, which `build_embedding` leaves empty; float32 on the CPU."""
    return sincos_row(dim) if MODALITIES[name].sequence else sincos_2d(side, dim)
