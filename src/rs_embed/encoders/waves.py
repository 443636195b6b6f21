"""Patches whose kernels are generated from the wavelengths of the bands, so that one network takes any bands.

A transformer layer turns a code of each wavelength into the kernel of its band. Clay, DOFA and Copernicus-FM share it,
with the differences that a `KernelRecipe` names.

Source: Xiong et al. 2024, arXiv:2403.15356 (DOFA).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.layers import CachesFromWeights, LRUCache
from rs_embed.errors import BandMismatch, InputError

CODE_DIM = 128
"""Length of the code of a wavelength, and width of the generator."""
WEIGHT_TOKENS = 128
"""Learned tokens that the generator attends to beside the wavelengths."""
KERNELS_KEPT = 4
"""Sets of bands whose kernels are cached (DOFA base, nine bands: 7 MB)."""


@dataclass(frozen=True)
class Wave:
    """Where a band lies in the spectrum."""

    centre_um: float
    """Central wavelength, micrometres."""
    width_um: float | None = None
    """Bandwidth, micrometres, for networks that take it."""


@dataclass(frozen=True)
class KernelRecipe:
    """How a family generates its kernels, and names the tensors of its generator."""

    code: Callable[[Sequence[Wave]], Float[Tensor, "band code"]]
    """Encodes the wavelengths, on the CPU."""
    transformer: str
    """Name of the transformer in the published file."""
    linears: tuple[str, str]
    """Names of the two linear layers that a code passes first."""
    activation: Callable[[Tensor], Tensor]
    """Activation after each of those layers."""
    scale: float
    """Factor of the kernels."""
    scaled_bias: bool
    """Whether the bias takes that factor, too."""
    padding_px: int
    """Zeros around the image: the patch of token k begins this far before pixel k x patch."""
    channels_first: bool
    """Whether the values of a kernel are ordered by output channel, row, column, and not row, column, channel."""


class WaveResidual(nn.Module):
    """Two linear layers, each with an activation, added to their input."""

    def __init__(self, recipe: KernelRecipe) -> None:
        super().__init__()
        self._recipe = recipe
        for name in recipe.linears:
            self.add_module(name, nn.Linear(CODE_DIM, CODE_DIM))

    def forward(self, codes: Float[Tensor, "band code"]) -> Float[Tensor, "band code"]:
        """Map the code of each band."""
        x = codes
        for name in self._recipe.linears:
            x = self._recipe.activation(self.get_submodule(name)(x))
        return codes + x


class KernelGenerator(nn.Module):
    """One transformer layer over learned tokens and the codes of the bands.

    Args:
        kernel_values: Length of the kernel of a band.
        dim: Token width of the network, and length of the bias.
        transformer: Name of the transformer in the published file.
    """

    def __init__(self, *, kernel_values: int, dim: int, transformer: str) -> None:
        super().__init__()
        self._transformer = transformer
        self.weight_tokens: nn.Parameter = nn.Parameter(torch.zeros(WEIGHT_TOKENS, CODE_DIM))
        self.bias_token: nn.Parameter = nn.Parameter(torch.zeros(1, CODE_DIM))
        layer = nn.TransformerEncoderLayer(CODE_DIM, nhead=4, dropout=0.0, activation="gelu")
        self.add_module(transformer, nn.ModuleDict({"layers": nn.ModuleList([layer])}))
        self.fc_weight: nn.Linear = nn.Linear(CODE_DIM, kernel_values)
        self.fc_bias: nn.Linear = nn.Linear(CODE_DIM, dim)

    def forward(self, codes: Float[Tensor, "band code"]) -> tuple[Float[Tensor, "band kernel"], Float[Tensor, " dim"]]:
        """Generate the kernel of each band, and the bias."""
        layer = self.get_submodule(f"{self._transformer}.layers.0")
        x: Tensor = layer(torch.cat([self.weight_tokens, codes, self.bias_token]))
        return self.fc_weight(x[WEIGHT_TOKENS:-1] + codes), self.fc_bias(x[-1])


class WavePatches(CachesFromWeights):
    """The patch embedding: kernels are generated once for each set of bands and cached.

    Args:
        dim: Token width.
        patch_px: Side of a patch, pixels.
        recipe: How kernels are generated.
    """

    def __init__(self, *, dim: int, patch_px: int, recipe: KernelRecipe) -> None:
        super().__init__()
        self._recipe, self._dim, self._patch_px = recipe, dim, patch_px
        self.weight_generator: KernelGenerator = KernelGenerator(
            kernel_values=dim * patch_px**2, dim=dim, transformer=recipe.transformer
        )
        self.fclayer: WaveResidual = WaveResidual(recipe)
        self._kept: LRUCache[tuple[Tensor, Tensor]] = LRUCache(KERNELS_KEPT)

    def drop_cached(self) -> None:
        """Drop the cached kernels."""
        self._kept.clear()

    def forward(
        self, image: Float[Tensor, "batch band height width"], waves: Sequence[Wave]
    ) -> Float[Tensor, "batch dim row col"]:
        """Embed each patch.

        Args:
            image: Standardised pixels, in whole patches.
            waves: The spectrum of each band.

        Raises:
            InputError: The image is not made of whole patches.
            BandMismatch: The number of bands differs from that of the wavelengths.
        """
        height, width = image.shape[2:]
        if height % self._patch_px or width % self._patch_px:
            raise InputError(
                f"Expected images in whole patches of {self._patch_px} px, got {height} x {width} px.",
                fix="crop, pad or resize them",
            )
        if image.shape[1] != len(waves):
            raise BandMismatch(
                f"Expected a wavelength for each of {image.shape[1]} bands, got {len(waves)}.",
                fix="pass one Wave per band, in the order of the bands",
            )
        kernel, bias = self.kernels(tuple(waves))
        return F.conv2d(image, kernel, bias, stride=self._patch_px, padding=self._recipe.padding_px)

    def kernels(self, waves: tuple[Wave, ...]) -> tuple[Float[Tensor, "dim band y x"], Float[Tensor, " dim"]]:
        """Return the kernel of each band, and the bias, in float32."""
        if torch.is_grad_enabled():
            return self._generated(waves)

        def make() -> tuple[Tensor, Tensor]:
            # Tensors made in inference mode could not serve training later.
            with torch.inference_mode(False), torch.no_grad():
                return self._generated(waves)

        return self._kept.get(waves, make)

    def _generated(self, waves: tuple[Wave, ...]) -> tuple[Tensor, Tensor]:
        recipe, device, side = self._recipe, self.weight_generator.bias_token.device, self._patch_px
        with torch.autocast(device.type, enabled=False):
            values, bias = self.weight_generator(self.fclayer(recipe.code(waves).to(device)))
        if recipe.channels_first:
            kernel = values.view(-1, self._dim, side, side).transpose(0, 1)
        else:
            kernel = values.view(-1, side, side, self._dim).permute(3, 0, 1, 2)
        return kernel * recipe.scale, bias * recipe.scale if recipe.scaled_bias else bias
