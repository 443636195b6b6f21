"""Panopticon: a DINOv2 vision transformer for any optical bands and radar channels.

One kernel embeds the patches of every channel. A code tells the channels apart, and one learned query per head then
mixes the channels of each patch.

Source: TorchGeo 0.8.1, models/panopticon.py (Panopticon-FM/panopticon); paper arXiv:2503.10845.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rs_embed.encoders.kernels.linear import Linear
from rs_embed.encoders.layers import at_once
from rs_embed.encoders.tokens import TokenGrid, Tokens
from rs_embed.encoders.vit import ViT
from rs_embed.errors import InputError

PATCH_PX = 14
TABLE_SIDE = 37
"""Rows, and columns, of the published table of positions: images of 518 px."""
CHANNEL_HEADS = 16
RADAR = -12
"""Lowest id of a radar channel. -1 to -4 are VV, VH, HH and HV in any orbit, -5 to -8 the same in ascending orbits, -9
to -12 in descending ones."""


class ChannelCodes(nn.Module):
    """The code of each channel: its wavelength, or polarisation and orbit.

    Args:
        wide: Width of a code, a multiple of 6.
    """

    def __init__(self, wide: int) -> None:
        super().__init__()
        self._wide = wide
        third = wide // 3
        self.embed_transmit: nn.Parameter = nn.Parameter(torch.zeros(2, third))
        self.embed_receive: nn.Parameter = nn.Parameter(torch.zeros(2, third))
        self.embed_orbit: nn.Parameter = nn.Parameter(torch.zeros(2, wide - 2 * third))

    def forward(self, channels: Int[Tensor, "batch channel"]) -> Float[Tensor, "batch channel wide"]:
        """Encode ids: nanometres of optical bands, negative ids of radar channels."""
        half = self._wide // 2
        omega = 1.0 / (10000 ** (torch.arange(half, dtype=torch.float32, device=channels.device) / half))
        angle = channels[..., None].float() * omega
        optical = torch.cat([angle.sin(), angle.cos()], dim=-1)
        number = (-(channels + 1)).clamp(min=0)
        polarisation, orbit = number % 4, number // 4
        sent = self.embed_transmit[polarisation // 2]  # V of VV and VH, H of HH and HV
        received = self.embed_receive[((polarisation == 1) | (polarisation == 2)).long()]
        orbits = torch.cat([self.embed_orbit.mean(dim=0, keepdim=True), self.embed_orbit])
        radar = torch.cat([sent, received, orbits[orbit]], dim=-1)
        return torch.where((channels < 0)[..., None], radar, optical)


class ChannelAttention(nn.Module):
    """Attention of a learned query to the channels of a patch; queries and outputs are not projected.

    Args:
        wide: Width of the channels.
    """

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.inproj_k: nn.Linear = nn.Linear(wide, wide, bias=False)
        self.inproj_v: nn.Linear = nn.Linear(wide, wide, bias=False)

    def forward(
        self, query: Float[Tensor, "1 1 wide"], x: Float[Tensor, "batch channel patch wide"]
    ) -> Float[Tensor, "batch patch wide"]:
        """Mix the channels of each patch.

        The query is the same for every patch, so its product with the keys is one of the channels with a fixed matrix,
        and values are projected after they are mixed. This saves two products with a square matrix for each channel.
        """
        per_head = query.shape[-1] // CHANNEL_HEADS
        asked = (query.flatten() * per_head**-0.5).unflatten(0, (CHANNEL_HEADS, per_head))
        key = self.inproj_k.weight.unflatten(0, (CHANNEL_HEADS, per_head))
        looked = torch.einsum("hd,hdw->hw", asked, key)
        weight = torch.einsum("bcpw,hw->bchp", x, looked).softmax(dim=1)
        mixed = torch.einsum("bchp,bcpw->hbpw", weight, x).flatten(1, 2)
        value = self.inproj_v.weight.unflatten(0, (CHANNEL_HEADS, per_head))
        out: Tensor = torch.bmm(mixed, value.mT).unflatten(1, (len(x), -1)).permute(1, 2, 0, 3).flatten(2)
        return out


class ChannelFusion(nn.Module):
    """Codes, query and attention over channels.

    Args:
        wide: Width of the channels.
    """

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.query: nn.Parameter = nn.Parameter(torch.zeros(1, 1, wide))
        self.chnemb: ChannelCodes = ChannelCodes(wide)
        self.xattn: ChannelAttention = ChannelAttention(wide)


class SharedKernel(nn.Module):
    """A convolution over the patches of each channel.

    Args:
        wide: Number of its outputs.
    """

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.conv3d: nn.Conv3d = nn.Conv3d(1, wide, (1, PATCH_PX, PATCH_PX), (1, PATCH_PX, PATCH_PX))


class ChannelPatches(nn.Module):
    """Patches of any channels.

    Args:
        dim: Token width.
        wide: Width of the channels.
    """

    def __init__(self, *, dim: int, wide: int) -> None:
        super().__init__()
        self.conv3d: SharedKernel = SharedKernel(wide)
        self.chnfus: ChannelFusion = ChannelFusion(wide)
        self.proj: nn.Linear = Linear(wide, dim)

    def forward(
        self, image: Float[Tensor, "batch channel height width"], channels: Int[Tensor, "batch channel"]
    ) -> Float[Tensor, "batch patch dim"]:
        """Embed each patch of each channel, and mix the channels."""
        kernel = self.conv3d.conv3d
        codes = self.chnfus.chnemb(channels)
        found = []
        step = at_once(1, image)  # the channels of one image take 2 MB each
        for part, code in zip(image.split(step), codes.split(step), strict=True):
            patches = F.conv2d(part.flatten(0, 1)[:, None], kernel.weight.squeeze(2), kernel.bias, stride=PATCH_PX)
            x = patches.flatten(2).mT.unflatten(0, part.shape[:2]) + code[:, :, None]
            found.append(self.proj(self.chnfus.xattn(self.chnfus.query, x)))
        return torch.cat(found)


class PanopticonEncoder(ViT):
    """The encoder of Panopticon.

    Args:
        dim: Token width; channels are three times as wide.
        depth: Number of blocks.
        heads: Number of heads.
    """

    def __init__(self, *, dim: int, depth: int, heads: int) -> None:
        super().__init__(dim=dim, depth=depth, heads=heads, side=TABLE_SIDE, scaled=True)
        self.patch_embed: ChannelPatches = ChannelPatches(dim=dim, wide=3 * dim)

    def positions(self, rows: int, cols: int) -> Float[Tensor, "1 token dim"]:
        """Return the codes of the class token and of the patches; the table is resized as in TorchGeo."""
        if (rows, cols) == (TABLE_SIDE, TABLE_SIDE):
            return self.pos_embed
        own, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        square = table.mT.unflatten(2, (TABLE_SIDE, TABLE_SIDE)).float()
        resized = F.interpolate(square, (rows, cols), mode="bicubic", antialias=True)
        return torch.cat([own, resized.flatten(2).mT], dim=1)

    def forward(
        self,
        image: Float[Tensor, "batch channel height width"],
        channels: Int[Tensor, "batch channel"],
        layers: Sequence[int] | None = None,
    ) -> Tokens:
        """Encode images of any channels: a class token, then patches row by row.

        Args:
            image: Standardised pixels.
            channels: Of each channel, the central wavelength in nanometres, or the id of a radar channel (see `RADAR`).
                They are not modified.
            layers: See `ViT.mixed`.

        Raises:
            InputError: The image does not consist of whole patches, or an id does not exist.
            SpecError: A layer does not exist.
        """
        height, width = image.shape[2:]
        if height % PATCH_PX or width % PATCH_PX or not height * width:
            raise InputError(
                f"Expected whole patches of {PATCH_PX} px, got {height} x {width} px.", fix="crop, pad or resize it"
            )
        if bool(((channels < RADAR) | (channels == 0)).any()):
            raise InputError(
                f"Expected wavelengths in nm, or ids from -1 to {RADAR}, got {channels.flatten().tolist()}.",
                fix="convert micrometres to nanometres",
            )
        rows, cols = height // PATCH_PX, width // PATCH_PX
        patches = self.patch_embed(image, channels)
        return self.mixed(patches, self.positions(rows, cols), (TokenGrid("patch", rows, cols),), layers)
