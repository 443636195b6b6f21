"""The authors' own TerraMind (package terratorch), with random weights that leave nothing at its default."""

import random
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rs_embed.embedders.runtime.terratorch import leaving_no_trace, load_terratorch

PIXELS = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM")
TOKENS = ("S2L2A", "S1GRD", "S1RTC", "DEM", "LULC", "NDVI")


def build(name: str, **options: object) -> nn.Module:
    """A model of the registry, without weights from anywhere."""
    registry = load_terratorch().full_models if "generate" in name else load_terratorch().own_backbones
    with leaving_no_trace(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(6)
        return registry.build(name, pretrained=False, **options).eval()


def stir(state: dict[str, torch.Tensor], seed: int = 11) -> None:
    """Change what an initialisation leaves at 0 or 1, and make logits differ enough for a draw to matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith("weight") and "norm" in name:
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
        if name.endswith(("mod_emb", "qkv.bias", "proj.bias", "fc1.bias", "fc2.bias")):
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
        if name.endswith("token_emb.weight"):
            tensor.mul_(4)


def checkpoint(folder: Path, key: str, outputs: Sequence[str] = TOKENS) -> Path:
    """A file as the authors publish it: encoder, decoder and all embeddings, under the names of both."""
    from rs_embed.embedders.catalog import get_card
    from rs_embed.embedders.imagining.sampler import Imagination
    from rs_embed.embedders.runtime.random_numbers import own_random_numbers

    path = folder / f"{key}.pt"
    if not path.exists():
        load_terratorch()
        with own_random_numbers(5):
            state = Imagination(get_card(key), (*PIXELS, "Coordinates"), outputs).model.state_dict()
        stir(state)
        torch.save(state, path)
    return path


def load_as_the_authors_do(model: nn.Module, path: Path) -> nn.Module:
    """With their own filter of names."""
    from terratorch.models.backbones.terramind.model import terramind_register as register

    state = torch.load(path, weights_only=True)
    keys = register.checkpoint_filter_fn_generate if hasattr(model, "sampler") else register.checkpoint_filter_fn
    if hasattr(model, "tim_modalities"):
        keys = register.checkpoint_filter_fn_tim
    model.load_state_dict(keys(state, model))
    return model


def standardised(name: str, values: np.ndarray) -> torch.Tensor:
    """`[1, C, H, W]` with the authors' table."""
    from terratorch.models.backbones.terramind.model import terramind_register as register

    kind = "tok" if name in ("LULC", "NDVI") else "untok"
    key = f"{kind}_{name.lower().replace('s2', 'sen2').replace('s1', 'sen1')}@224"
    mean, std = (
        torch.tensor(table[key])[:, None, None] for table in (register.v1_pretraining_mean, register.v1_pretraining_std)
    )
    return ((torch.from_numpy(values) - mean) / std)[None]


def pixels(name: str, height: int, width: int) -> np.ndarray:
    """Plausible values in the unit of the collection."""
    generator = np.random.default_rng(len(name))
    bands = {"S2L2A": 12, "S2L1C": 13, "S1GRD": 2, "S1RTC": 2, "DEM": 1, "NDVI": 1, "LULC": 1}[name]
    if name == "LULC":
        return (np.indices((height, width)).sum(axis=0) // 24 % 10)[None].astype(np.float32)
    level, spread = {"S2": (1600, 900), "S1": (-15, 4), "DE": (600, 300), "ND": (0.4, 0.2)}[name[:2]]
    waves = np.sin(np.linspace(0, 7, height))[:, None] * np.cos(np.linspace(0, 5, width))
    return (level + spread * (waves + 0.2 * generator.normal(size=(bands, height, width)))).astype(np.float32)


def their_seed(seed: int) -> int:
    """The sampler's seed after `random.seed(seed)`: the authors draw it from Python's random numbers."""
    random.seed(seed)
    drawn = random.randint(-(2**31), 2**31 - 1)
    random.seed(seed)
    return drawn


def a_seed_that_is_positive() -> int:
    """For `random.seed`, such that what is drawn from it is a seed that we take, too."""
    state = random.getstate()
    try:
        return next(seed for seed in range(100) if their_seed(seed) >= 0)
    finally:
        random.setstate(state)


def places_tokenizer(path: Path) -> object:
    """A stand-in for the authors' file, which could not be reached: words for the places of the tests."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[SOS]", "[EOS]", "lat=0.00", "lon=0.00", "lat=-34.00", "lon=-121.25"]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(path))
    return made
