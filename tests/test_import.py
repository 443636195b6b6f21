"""Importing and listing are instant: nothing heavy is loaded until it is needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rs_embed

HEAVY = ("torch", "ee", "rasterio", "xarray", "matplotlib", "huggingface_hub", "pydantic", "numpy")


NOT_FOR_A_VECTOR = (
    *("geopandas", "pyarrow", "pandas", "xarray", "scipy", "zarr", "matplotlib", "ee", "fsspec", "httpx", "requests"),
    *("huggingface_hub", "sympy", "torch._dynamo", "torch._inductor", "terratorch", "pystac_client"),
)


def loaded_after(code: str, looked_for: tuple[str, ...] = HEAVY) -> set[str]:
    report = f"{code}\nimport sys; print(*(name for name in {looked_for!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(result.stdout.split("\n")[-2].split())


def test_importing_rs_embed_loads_nothing_else():
    assert loaded_after("import rs_embed") == set()


@pytest.mark.parametrize(
    "code",
    [
        "from rs_embed import list_models; list_models('thor*')",
        "from rs_embed import describe_model; describe_model('thor')",
        "from rs_embed import PointBuffer, BBox, Region, TemporalSpec, OutputSpec, SensorSpec",
    ],
)
def test_listing_describing_and_specifying_load_no_torch_and_no_imagery(code):
    assert not loaded_after(code) & {"torch", "ee", "rasterio", "xarray", "matplotlib", "huggingface_hub"}


@pytest.mark.slow
def test_the_first_vector_of_a_process_loads_only_what_it_needs(thor_tiny_checkpoint):
    code = f"""
import warnings; warnings.simplefilter("ignore")
from rs_embed import get_embedding
get_embedding("thor_1_0_tiny", backend="sample", ckpt={str(thor_tiny_checkpoint)!r}, device="cpu")
get_embedding("mosaiks_rcf", backend="sample", device="cpu")"""
    assert loaded_after(code, NOT_FOR_A_VECTOR) == set()


def test_every_public_name_loads_and_unknown_ones_say_so():
    for name in rs_embed.__all__:
        assert getattr(rs_embed, name) is not None
    assert set(rs_embed.__all__) <= set(dir(rs_embed))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rs_embed.no_such_name


def test_the_package_is_typed_and_its_version_is_one():
    from importlib.metadata import version
    from importlib.resources import files

    assert (files("rs_embed") / "py.typed").is_file()
    assert version("eo-rs-embed") == rs_embed.__version__


@pytest.mark.slow
def test_no_package_imports_an_underscore_module_of_another():
    root = Path(rs_embed.__file__).parent
    fixed = {"rs_embed.embedders._vit_mae_utils"}  # its name is given by the documents, and it is everyone's
    found = []
    for path in root.rglob("*.py"):
        package = ("rs_embed", *path.relative_to(root).parent.parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [f"{node.module}.{name.name}" for name in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for name in (one.split(".") for one in names if one.startswith("rs_embed.")):
                private = next((place for place, part in enumerate(name) if re.match(r"_[a-z]", part)), None)
                whole = [] if private is None else name[: private + 1]
                if whole and is_module(root, whole) and tuple(whole[:-1]) != package and ".".join(whole) not in fixed:
                    found.append(f"{path.relative_to(root)}: {'.'.join(whole)}")
    assert not found


def is_module(root: Path, name: list[str]) -> bool:
    place = root.joinpath(*name[1:])
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()
