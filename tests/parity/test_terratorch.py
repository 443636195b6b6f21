"""TerraMind beside the authors' own module (package terratorch): same weights in one file, same pixels, same numbers.

`make parity` runs this in an environment of its own; elsewhere it is skipped. Weights are random: arithmetic, layout
and statistics are compared, not quality.
"""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from rs_embed import OutputSpec, PointBuffer, get_embedding, plan_embedding
from rs_embed.embedders.catalog import get_card
from rs_embed.testing import FieldProvider, hills

pytestmark = pytest.mark.skipif(
    find_spec("terratorch") is None, reason="terratorch is not installed here: `make parity` runs this with it"
)
PIXELS = ("S2L2A", "S2L1C", "RGB", "S1GRD", "S1RTC", "DEM")
SETS = [("S2L2A",), ("S2L2A", "S1GRD", "DEM")]
PLACE = PointBuffer(lon=-121.13, lat=-33.88, buffer_m=480)


class TerraTorch:
    """The authors' builders, one state dict a size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a hundred packages
            from terratorch.models.backbones.terramind.model import terramind_register
            from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY
        torch.set_float32_matmul_precision("highest")  # the import turns it to "medium": bfloat16 on some CPUs
        self.registry, self.tables = TERRATORCH_BACKBONE_REGISTRY, terramind_register

    def build(self, key: str, modalities: Sequence[str], merge: str | None, **options) -> torch.nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.registry.build(
                key, pretrained=False, modalities=list(modalities), merge_method=merge, **options
            ).eval()

    def weights(self, key: str) -> Path:
        """A file as the authors' code writes it, of values that leave nothing at its default."""
        path = self.folder / f"{key}.pt"
        if not path.exists():
            torch.manual_seed(11)
            state = self.build(key, (*PIXELS, "coords"), "mean").state_dict()
            for name, tensor in state.items():
                if name.endswith("weight") and "norm" in name:
                    tensor.add_(0.2 * torch.randn_like(tensor))
                if name.endswith(("mod_emb", "qkv.bias", "proj.bias", "fc1.bias", "fc2.bias")):
                    tensor.add_(0.05 * torch.randn_like(tensor))
            torch.save(state, path)
        return path

    def standardised(self, name: str, values: np.ndarray) -> torch.Tensor:
        """With the authors' table."""
        key = f"untok_{name.lower().replace('s2', 'sen2').replace('s1', 'sen1')}@224"
        mean, std = (
            torch.tensor(table[key])[:, None, None]
            for table in (self.tables.v1_pretraining_mean, self.tables.v1_pretraining_std)
        )
        return ((torch.from_numpy(values) - mean) / std)[None]


@pytest.fixture(scope="module")
def terratorch(tmp_path_factory) -> TerraTorch:
    return TerraTorch(tmp_path_factory.mktemp("terratorch"))


def pixels(name: str, height: int, width: int) -> np.ndarray:
    """Plausible values in the unit of the collection."""
    generator = np.random.default_rng(len(name))
    bands = {"S2L2A": 12, "S2L1C": 13, "S1GRD": 2, "S1RTC": 2, "DEM": 1}[name]
    level, spread = {"S2": (1600, 900), "S1": (-15, 4), "DE": (600, 300)}[name[:2]]
    waves = np.sin(np.linspace(0, 7, height))[:, None] * np.cos(np.linspace(0, 5, width))
    return (level + spread * (waves + 0.2 * generator.normal(size=(bands, height, width)))).astype(np.float32)


def assert_close(ours: object, theirs: torch.Tensor) -> None:
    actual = torch.as_tensor(np.asarray(ours))
    tolerance = 2e-5 + 5e-6 * theirs.abs().max().item()
    print(f"{(actual - theirs).abs().max().item() / tolerance:.3f} of the tolerance")  # shown by -rP
    torch.testing.assert_close(actual, theirs, rtol=0, atol=tolerance)


def as_grid(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return tokens[0].T.reshape(-1, height // 16, width // 16)


@pytest.mark.parametrize("names", SETS, ids="+".join)
@pytest.mark.parametrize("key", ["terramind_v1_tiny", "terramind_v1_base"])
def test_tokens_of_every_block_are_those_of_terratorch(terratorch, key, names):
    height, width = (224, 224) if key.endswith("base") else (224, 160)
    held = {name: pixels(name, height, width) for name in names}
    model = terratorch.build(key, names, None, ckpt_path=str(terratorch.weights(key)))
    with torch.inference_mode():
        theirs = model({name: terratorch.standardised(name, values) for name, values in held.items()})
    call = {"input_chw": held, "ckpt": terratorch.weights(key), "output": OutputSpec.grid(), "merge_method": "dict"}
    card = get_card(key)
    layers = range(card.arch["depth"])
    grid = get_embedding(card.id, **call, layers=list(layers))
    rows, cols = height // 16, width // 16
    for layer, expected in zip(layers, theirs, strict=True):
        maps = expected[0].T.reshape(card.dim, len(names), rows, cols).transpose(0, 1).flatten(0, 1)
        assert_close(grid.data[layer * len(maps) : (layer + 1) * len(maps)], maps)
    vector = get_embedding(card.id, input_chw=held, ckpt=call["ckpt"], merge_method="none")
    assert_close(vector.data, theirs[-1][0].mean(dim=0))


@pytest.mark.parametrize("merge", ["mean", "max", "concat"])
@pytest.mark.parametrize("order", [("S2L2A", "S1GRD", "DEM"), ("DEM", "S2L1C", "S1RTC")], ids="+".join)
def test_merged_layers_are_those_of_terratorch_in_the_order_of_the_inputs(terratorch, order, merge):
    held = {name: pixels(name, 96, 128) for name in order}
    ckpt = terratorch.weights("terramind_v1_tiny")
    model = terratorch.build("terramind_v1_tiny", order, merge, ckpt_path=str(ckpt))
    with torch.inference_mode():
        theirs = model({name: terratorch.standardised(name, values) for name, values in held.items()})
    call = {"input_chw": held, "ckpt": ckpt, "merge_method": merge, "layers": [2, 11]}
    grid = get_embedding("terramind_1_0_tiny", **call, output=OutputSpec.grid())
    assert_close(grid.data, as_grid(torch.cat([theirs[2], theirs[11]], dim=2), 96, 128))
    assert_close(get_embedding("terramind_1_0_tiny", **call).data, torch.cat([theirs[2], theirs[11]], 2)[0].mean(dim=0))


def test_a_subset_of_bands_takes_the_kernels_that_terratorch_takes(terratorch):
    bands = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_2", "SWIR_1"]
    ckpt = terratorch.weights("terramind_v1_tiny")
    model = terratorch.build("terramind_v1_tiny", ["S2L2A"], "mean", ckpt_path=str(ckpt), bands={"S2L2A": bands})
    dn = pixels("S2L2A", 96, 96)
    chosen = [1, 2, 3, 8, 11, 10]
    with torch.inference_mode():
        theirs = model({"S2L2A": terratorch.standardised("S2L2A", dn)[:, chosen]})[-1]
    ours = get_embedding("terramind_1_0_tiny", input_chw=dn[chosen], bands=bands, ckpt=ckpt)
    assert_close(ours.data, theirs[0].mean(dim=0))


def test_coordinates_become_the_ids_and_tokens_of_terratorch(terratorch, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[SOS]", "[EOS]", "lat=0.00", "lon=0.00", "lat=-34.00", "lon=-121.25"]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "coords.json"))
    ckpt = terratorch.weights("terramind_v1_tiny")
    model = terratorch.build("terramind_v1_tiny", ["S2L2A", "coords"], None, ckpt_path=str(ckpt))
    model.tokenizer["coords"].text_tokenizer = made

    def field(lon, lat, band):
        return hills(lon, lat, band)

    call = {"spatial": PLACE, "backend": FieldProvider(field), "ckpt": ckpt}
    chip = FieldProvider(field).fetch(plan_embedding("terramind_1_0_tiny", **call).items[0].queries[0])
    told = {
        "S2L2A": terratorch.standardised("S2L2A", chip.values[0]),
        "coords": torch.tensor([[PLACE.lon, PLACE.lat]]),
    }
    with torch.inference_mode():
        theirs = model(told)[-1]
    call |= {"modality": ["S2L2A", "Coordinates"], "coords_tokenizer": tmp_path / "coords.json"}
    assert_close(get_embedding("terramind_1_0_tiny", **call, merge_method="none").data, theirs[0].mean(dim=0))
    grid = get_embedding("terramind_1_0_tiny", **call, output=OutputSpec.grid())
    assert_close(grid.data, as_grid(theirs[:, :36], 96, 96))
