"""Copernicus-FM: a vision transformer for any bands by wavelength and bandwidth, which is told place, date and scale.

Source: torchgeo 0.8.1, models/copernicusfm.py; paper arXiv:2503.11849. The second patch embedding, for variables
described by a text, is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.dofa import DOFA_RECIPE, PATCH_PX
from rs_embed.encoders.tokens import TokenGrid, Tokens
from rs_embed.encoders.vit import ViT
from rs_embed.encoders.waves import CODE_DIM, Wave, WavePatches
from rs_embed.errors import BandMismatch, InputError

TRAINED_SIDE = 14
"""Rows and columns of the table of positions: 224 px."""
CENTRE_NM, WIDTH_NM = (100.0, 1e9), (1.0, 1e9)
"""Shortest and longest period of the codes of wavelengths and bandwidths, nanometres."""
DEGREES, AREA_KM2, DAYS = (0.0001, 720.0), (0.001, 5.1e8), (1.0, 365.25)
"""Shortest and longest period of the codes of place, area and date."""


def fourier(values: Float[Tensor, " item"], periods: tuple[float, float], dim: int) -> Float[Tensor, "item dim"]:
    """Encode numbers as sines, then cosines, with periods spaced evenly in their logarithm.

    Computed in float64 on the CPU, returned as float32 on the device of `values`. The values themselves are those that
    float32 can hold, as in the authors' code, whose shortest periods resolve less.

    Args:
        values: float32.
        periods: Shortest and longest period, in the unit of `values`.
        dim: Even length of a code.
    """
    low, high = (math.log10(period) for period in periods)
    spaced = torch.logspace(low, high, dim // 2, dtype=torch.float64, device="cpu")
    angle = values.to("cpu", torch.float64)[:, None] * (2 * math.pi / spaced)
    return torch.cat([angle.sin(), angle.cos()], dim=1).float().to(values.device)


def spectrum_code(waves: Sequence[Wave]) -> Float[Tensor, "band code"]:
    """Encode wavelengths and bandwidths, and add the two codes.

    Raises:
        BandMismatch: A bandwidth is missing, or a number is beyond the periods of its code.
    """
    for wave in waves:
        known = wave.width_um is not None and WIDTH_NM[0] <= wave.width_um * 1000 <= WIDTH_NM[1]
        if not known or not CENTRE_NM[0] <= wave.centre_um * 1000 <= CENTRE_NM[1]:
            raise BandMismatch(
                f"Expected bands of 0.1 um to 1 m with bandwidths of 0.001 um to 1 m, got {wave}.",
                fix="pass Wave(centre_um, width_um), both in micrometres",
            )
    centres = torch.tensor([wave.centre_um * 1000 for wave in waves], dtype=torch.float32, device="cpu")
    widths = torch.tensor([(wave.width_um or 0) * 1000 for wave in waves], dtype=torch.float32, device="cpu")
    return fourier(centres, CENTRE_NM, CODE_DIM) + fourier(widths, WIDTH_NM, CODE_DIM)


COPERNICUS_RECIPE = replace(DOFA_RECIPE, code=spectrum_code)
"""The generator is that of DOFA, with another code of the bands."""


class CopernicusEncoder(ViT):
    """The encoder of Copernicus-FM, for square images and any bands.

    Args:
        dim: Token width, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__(dim=dim, depth=depth, heads=heads, side=TRAINED_SIDE, normed=False, eps=1e-5)
        self._dim = dim
        self.coord_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.scale_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.time_token: nn.Parameter = nn.Parameter(torch.zeros(1, 1, dim))
        self.coord_fc: nn.Linear = nn.Linear(dim, dim)
        self.scale_fc: nn.Linear = nn.Linear(dim, dim)
        self.time_fc: nn.Linear = nn.Linear(dim, dim)
        self.patch_embed_spectral: WavePatches = WavePatches(dim=dim, patch_px=PATCH_PX, recipe=COPERNICUS_RECIPE)

    def forward(
        self,
        image: Float[Tensor, "batch band height width"],
        waves: Sequence[Wave],
        *,
        lon_lat: Float[Tensor, "batch 2"] | None = None,
        days: Float[Tensor, " batch"] | None = None,
        area_km2: Float[Tensor, " batch"] | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tokens:
        """Encode images of any bands.

        What is not told is unknown for the whole batch, and replaced by a learned token. Do not mix places with and
        without it in one batch.

        Args:
            image: Standardised pixels: squares of whole patches.
            waves: Wavelength and bandwidth of each band.
            lon_lat: Longitude and latitude of the centre, degrees.
            days: Days since 1970-01-01.
            area_km2: Ground of one patch.
            layers: Blocks whose outputs are concatenated along the token width, counted from 0, or from -1 backwards;
                default: the last. None has a final norm. Blocks after the deepest one are not run.

        Returns:
            The class token, then the patches row by row.

        Raises:
            InputError: An image is not a square of whole patches, a number is not finite, or an area is beyond the
                periods of its code.
            BandMismatch: The bands do not match the wavelengths, or a bandwidth is missing.
            SpecError: A layer does not exist.
        """
        height, width = image.shape[2:]
        if height != width:
            raise InputError(f"Expected squares, got {height} x {width} px.", fix="crop, pad or resize them")
        _check_told(lon_lat, days, area_km2)
        patches = self.patch_embed_spectral(image, waves)
        rows, cols = patches.shape[2:]
        codes = self.positions(rows, cols) + self._told(lon_lat, days, area_km2)
        return self.mixed(patches.flatten(2).mT, codes, (TokenGrid("patch", rows, cols),), layers)

    def positions(self, rows: int, cols: int) -> Float[Tensor, "1 token dim"]:
        """Return the table of positions, resized to another number of patches."""
        if (rows, cols) == (TRAINED_SIDE, TRAINED_SIDE):
            return self.pos_embed
        first, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        laid = table.mT.unflatten(2, (TRAINED_SIDE, TRAINED_SIDE))
        resized = F.interpolate(laid, size=(rows, cols), mode="bicubic", antialias=True)
        return torch.cat([first, resized.flatten(2).mT], dim=1)

    def _told(
        self, lon_lat: Tensor | None, days: Tensor | None, area_km2: Tensor | None
    ) -> Float[Tensor, "#batch 1 dim"]:
        """Return the sum of the codes of place, area and date, or of the tokens that stand for unknown ones."""
        place: Tensor = self.coord_token
        area: Tensor = self.scale_token
        date: Tensor = self.time_token
        if lon_lat is not None:
            east, north = (fourier(lon_lat[:, i] + turn, DEGREES, self._dim // 2) for i, turn in enumerate((180, 90)))
            place = torch.cat([east, north], dim=1)[:, None]
        if area_km2 is not None:
            area = fourier(area_km2, AREA_KM2, self._dim)[:, None]
        if days is not None:
            date = fourier(days, DAYS, self._dim)[:, None]
        with torch.autocast(place.device.type, enabled=False):  # half precision would round the codes
            told: Tensor = self.coord_fc(place) + self.scale_fc(area) + self.time_fc(date)
        return told


def _check_told(lon_lat: Tensor | None, days: Tensor | None, area_km2: Tensor | None) -> None:
    for name, values in (("lon_lat", lon_lat), ("days", days), ("area_km2", area_km2)):
        if values is not None and not bool(values.isfinite().all()):
            raise InputError(
                f"Expected finite numbers for {name}, got others.", fix=f"leave {name} out where it is unknown"
            )
    if area_km2 is not None and not bool(((area_km2 >= AREA_KM2[0]) & (area_km2 <= AREA_KM2[1])).all()):
        raise InputError(
            f"Expected patches of {AREA_KM2[0]:g} to {AREA_KM2[1]:g} km2, got {area_km2.min():.3g} to "
            f"{area_km2.max():.3g}.",
            fix="leave area_km2 out, or use larger pixels",
        )
