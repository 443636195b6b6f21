"""Models that take only a location and no imagery: the location encoders of GeoCLIP and SatCLIP.

Source: geoclip 1.3.0 (wheel: code, weights); microsoft/satclip 322091f; for the sizes of the published files, the
loaders of torchgeo 0.10 (ViT16-L40) and others (ten degrees), which load them strictly. Of the six files, only the
commit of ViT16-L40 is known, and no hash.
"""

from rs_embed.core.settings import PlaceKnobs
from rs_embed.embedders.card import ModelCard, PackagedWeights, Weights

LOCATION = "location"
"""Name of the models' input: longitude and latitude of the centre of the place, or of each cell."""


class GeoClipKnobs(PlaceKnobs):
    """Knobs of GeoCLIP's location encoder."""

    prefix = "RS_EMBED_GEOCLIP_"


class SatClipKnobs(PlaceKnobs):
    """Knobs of SatCLIP's location encoders."""

    prefix = "RS_EMBED_SATCLIP_"


def _satclip(images: str, degrees: int, revision: str | None = None) -> ModelCard:
    """Return the card of one of the six releases.

    Args:
        images: The image encoder used in training.
        degrees: Number of degrees of the spherical harmonics.
        revision: Commit on the hub.
    """
    name, inputs = f"SatCLIP-{images}-L{degrees}", degrees**2
    return ModelCard(
        id=name.lower().replace("-", "_"),
        revision=1,
        kind="location",
        title=f"SatCLIP {images}-L{degrees}",
        adapter="rs_embed.embedders.onthefly_location:SatClipEmbedder",
        knobs=SatClipKnobs,
        arch={"dim": 256, "hidden": 512, "degrees": degrees},
        dim=256,
        parameters_m=round((512 * (inputs + 1) + 512 * 513 + 256 * 513) / 1e6, 3),
        weights=Weights(f"microsoft/{name}", f"{name.lower()}.ckpt", licence="MIT", revision=revision),
        modalities=(),
        place_modalities=(LOCATION,),
        input_prep="tile",
        licence="MIT",
        citation="arXiv:2311.17179",
        model_key=name,
        aliases=("satclip",) if revision else (),
    )


CARDS = (
    ModelCard(
        id="geoclip_location",
        revision=1,
        kind="location",
        title="GeoCLIP location encoder",
        adapter="rs_embed.embedders.onthefly_location:GeoClipEmbedder",
        knobs=GeoClipKnobs,
        arch={"dim": 512, "hidden": 1024, "waves": 256, "scales": 3},
        dim=512,
        parameters_m=9.45,
        weights=PackagedWeights(
            "geoclip",
            "geoclip/model/weights/location_encoder_weights.pth",
            licence="MIT",
            sha256="94b80ae3af89fca78539e129dd2929d321247f5ceeeb0a31bc2c31041a253394",
        ),
        modalities=(),
        place_modalities=(LOCATION,),
        input_prep="tile",
        licence="MIT",
        citation="arXiv:2309.16020",
        model_key="geoclip_location_encoder",
        aliases=("geoclip",),
    ),
    _satclip("ViT16", 40, revision="0ef2acc0b91d3c8cfdf4a0cc03207095989287ab"),
    _satclip("ViT16", 10),
    *(_satclip(images, degrees) for images in ("ResNet18", "ResNet50") for degrees in (10, 40)),
)
