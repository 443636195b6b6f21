"""Importing and listing are instant: nothing heavy is loaded until it is needed."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ee", "rasterio", "xarray", "matplotlib", "huggingface_hub", "pydantic", "numpy")


def loaded_after(code: str) -> set[str]:
    report = f"{code}\nimport sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
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


def test_every_public_name_loads_and_unknown_ones_say_so():
    import rs_embed

    for name in rs_embed.__all__:
        assert getattr(rs_embed, name) is not None
    assert set(rs_embed.__all__) <= set(dir(rs_embed))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rs_embed.no_such_name


def test_the_package_is_typed_and_its_version_is_one():
    from importlib.metadata import version
    from importlib.resources import files

    import rs_embed

    assert (files("rs_embed") / "py.typed").is_file()
    assert version("eo-rs-embed") == rs_embed.__version__
