import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from asking import RGB, ask

from rs_embed import EarthEngine, Stac
from rs_embed.errors import ReadError, SpecError
from rs_embed.providers import open_provider
from rs_embed.providers.arrays import ArrayProvider
from rs_embed.providers.rasters.local import LocalRasters
from rs_embed.providers.sample import SampleScene


def test_the_sample_is_opened_by_name():
    assert isinstance(open_provider("sample"), SampleScene)


@pytest.mark.parametrize("spelling", [str, Path])
def test_a_path_is_a_raster(make_raster, spelling):
    path = make_raster(np.full((3, 4, 4), 700, np.uint16) + np.arange(4, dtype=np.uint16), bands=RGB)
    provider = open_provider(spelling(path))
    assert isinstance(provider, LocalRasters)
    assert provider.fetch(ask()).shape_px == (4, 4)


@pytest.mark.parametrize("path", ["missing.tif", "some/where", "store.zarr", Path("missing"), "~/nothing.vrt"])
def test_what_looks_like_a_path_but_is_not_there_cannot_be_read(path):
    with pytest.raises(ReadError):
        open_provider(path)


def test_a_provider_is_returned_as_it_is():
    provider = ArrayProvider({"M": np.ones((3, 2, 2))})
    assert open_provider(provider) is provider


@pytest.mark.slow
def test_earth_engine_is_opened_by_name_without_asking_it_and_without_its_client():
    code = (
        "import sys; from rs_embed.providers import open_provider; assert open_provider('gee').name == 'gee'; "
        "assert 'ee' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "guess"), [("sampel", "sample"), ("STAC", "stac"), ("Gee", "gee")])
def test_a_misspelt_name_is_met_with_the_right_one(name, guess):
    with pytest.raises(SpecError, match=f"did you mean '{guess}'"):
        open_provider(name)


@pytest.mark.parametrize("backend", ["", "planetary", None, 3, SampleScene, object(), np.ones((3, 2, 2))])
def test_anything_else_is_refused(backend):
    with pytest.raises(SpecError, match="Expected a backend"):
        open_provider(backend)


@pytest.mark.slow
def test_rasterio_is_not_imported_before_a_raster_is_opened():
    code = (
        "import sys, numpy; from rs_embed.providers import open_provider; "
        "from rs_embed.providers.arrays import ArrayProvider; "
        "open_provider(ArrayProvider({'M': numpy.ones((3, 2, 2))})); "
        "assert 'rasterio' not in sys.modules and 'torch' not in sys.modules; "
        "open_provider('sample'); assert 'rasterio' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_providers_with_connections_can_be_sent_to_another_process_and_are_built_anew_there():
    for provider in (EarthEngine(project="x", concurrency=3, qps=5), Stac("planetary-computer", max_scenes=4)):
        again = pickle.loads(pickle.dumps(provider))
        assert type(again) is type(provider)
        assert again.identity() == provider.identity()
        assert again._settings == provider._settings
