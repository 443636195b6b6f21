"""Prithvi-EO-2.0 beside TerraTorch's network: the same seeded weights, pixels, dates and places. See test_vit.py."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from beside import DATA, assert_close, filled, report, write_manifest
from seeded import pixels

from rs_embed.embedders.cards import prithvi
from rs_embed.embedders.catalog import get_card
from rs_embed.encoders.prithvi import PrithviEncoder

pytestmark = pytest.mark.skipif(find_spec("terratorch") is None, reason="terratorch is not installed: `make parity`")
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
DATES = [(2021, 12), (2021, 150), (2022, 200), (2022, 361)]
PLACE = [47.77, -121.5]


def reference(key: str, frames: int, **options) -> torch.nn.Module:
    from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a hundred packages
        registry = load_terratorch().backbones
    with leaving_no_trace():
        module = registry.build(key, pretrained=False, num_frames=frames, **options)
    return filled(module, but=("pos_embed",))


def told(frames: int) -> dict[str, torch.Tensor]:
    return {"dates": torch.tensor([DATES[:frames]]).float(), "place": torch.tensor([PLACE])}


def run(module: torch.nn.Module, images: torch.Tensor, told: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """TerraTorch's outputs behind all blocks."""
    named = {"temporal_coords": told["dates"], "location_coords": told["place"]} if told else {}
    return module(images.transpose(1, 2), **named)


@pytest.mark.parametrize(
    ("model_id", "frames", "size"),
    [
        ("prithvi_eo_2_0_tiny_tl", 1, (224, 224)),
        ("prithvi_eo_2_0_tiny_tl", 1, (96, 160)),
        ("prithvi_eo_2_0_100_tl", 4, (224, 224)),
        ("prithvi_eo_2_0_600", 2, (112, 140)),
    ],
)
@torch.inference_mode()
def test_tokens_are_those_of_terratorch(model_id, frames, size):
    card = get_card(model_id)
    deep = {"depth": 2} if card.dim == 1280 else {}  # 14 px patches; the rest is as in the others
    theirs = reference(card.model_key, frames, **deep)
    ours = PrithviEncoder(**{**card.arch, **deep})
    ours.load_state_dict({name: one for name, one in theirs.state_dict().items() if name != "pos_embed"})
    images = torch.from_numpy(pixels(model_id, 1, frames, 6, *size))
    known = told(frames) if card.arch["told"] else {}
    expected = run(theirs, images, known)
    found = ours.eval()(images, layers=[0, -1], **known).values
    assert_close(found[..., : card.dim], expected[0])
    assert_close(found[..., card.dim :], expected[-1])
    assert_close(ours(images).values, run(theirs, images, {})[-1])
    report(model_id, lambda: run(theirs, images, known), lambda: ours(images, **known))


@pytest.mark.parametrize("card", prithvi.CARDS, ids=lambda card: card.id)
def test_every_card_says_what_terratorch_says(card):
    from rs_embed.embedders.runtime.terratorch import load_terratorch

    load_terratorch()
    from terratorch.models.backbones import prithvi_vit

    config, file = prithvi_vit.prithvi_cfgs[card.model_key], prithvi_vit.pretrained_weights[card.model_key]
    assert (card.weights.hub, card.weights.file) == (file["hf_hub_id"], file["hf_hub_filename"])
    for modality in card.modalities:
        stats = modality.stats.values()
        assert [(one.mean, one.std) for one in stats] == [*zip(config["mean"], config["std"], strict=True)]
        assert [one.model_name for one in stats] == [band.value for band in config["bands"]]
        assert modality.patch_px == config["patch_size"][1]
    assert card.arch["told"] == bool(config["coords_encoding"])
    assert any(modality.is_series for modality in card.modalities) == (config["num_frames"] > 1)


def write() -> None:
    found = {}
    with torch.inference_mode():
        for name, key, frames in (("told", "prithvi_eo_v2_100_tl", 3), ("untold", "prithvi_eo_v2_300", 1)):
            images = torch.from_numpy(pixels(name, 1, frames, 6, 32, 48))
            states = run(reference(key, frames, **SMALL), images, told(frames) if name == "told" else {})
            found |= {name: states[-1].numpy(), f"{name}_first": states[0].numpy()}
    np.savez_compressed(DATA / "vit/prithvi.npz", **found)
    for card in prithvi.CARDS:
        with torch.device("meta"):
            from terratorch.models.backbones.prithvi_mae import PrithviViT
            from terratorch.models.backbones.prithvi_vit import prithvi_cfgs

            config = {name: value for name, value in prithvi_cfgs[card.model_key].items() if name != "num_frames"}
            module = PrithviViT(**config, num_frames=1)
        state = {name: one for name, one in module.state_dict().items() if name != "pos_embed"}
        write_manifest(card.model_key, state, f"terratorch 1.2, {card.model_key}, without pos_embed, which is computed")


if __name__ == "__main__":
    write()
