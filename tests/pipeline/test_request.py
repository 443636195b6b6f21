"""A request is data: it goes to JSON and back, and what it cannot say as JSON it says so."""

import json
import pickle

import pytest

from rs_embed import EmbeddingRequest, OutputSpec, SensorSpec
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import RSEmbedError, SpecError
from rs_embed.exports.request import ExportRequest
from rs_embed.testing import FieldProvider

S2 = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B4", "B3"), cloudy_pct=10)
FULL = {
    "model_id": "thor",
    "knobs": {"patch_size": 8, "ckpt": "weights.pt"},
    "backend": "stac",
    "output": OutputSpec.grid(),
    "sensor": {"s2": S2},
    "modality": ["s2", "s1"],
    "bands": {"s1": ["VV"]},
    "input_prep": "tile",
    "device": "cpu",
    "precision": "bf16",
}


def test_a_request_is_the_same_after_json_and_after_pickle():
    request = EmbeddingRequest(**FULL)
    assert EmbeddingRequest.from_json(request.to_json()) == request
    assert pickle.loads(pickle.dumps(request)) == request
    assert set(json.loads(request.to_json())) == set(EmbeddingRequest.model_fields)


def test_a_request_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        EmbeddingRequest(**FULL).backend = "gee"


@pytest.mark.parametrize("given", [{"backend": FieldProvider()}, {"model_id": get_card("thor")}])
def test_an_object_stays_that_object_and_cannot_be_written_down(given):
    request = EmbeddingRequest(**FULL | given)
    ((name, value),) = given.items()
    assert vars(request)[name] is value
    with pytest.raises(SpecError, match="which JSON can hold"):
        request.to_json()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sensor": 3}, "Expected a SensorSpec"),
        ({"precision": "fp31"}, "fp32, bf16, auto"),
        ({"output": "pooled"}, "Expected an OutputSpec"),
        ({"modality": 5}, "name of a modality"),
        ({"bands": "B2"}, "list of bands"),
        ({"bands": [3]}, "list of bands"),
        ({"presicion": "fp32"}, "known field"),
        ({"sensor": {"collection": "x", "bands": ["B1"]}}, "known collection"),
    ],
)
def test_what_cannot_be_meant_is_a_spec_error_however_it_comes(given, said):
    with pytest.raises(SpecError, match=said):
        EmbeddingRequest(model_id="thor", **given)
    with pytest.raises(SpecError, match=said):
        EmbeddingRequest.from_json(json.dumps({"model_id": "thor", **given}))


def test_text_that_is_no_json_is_a_spec_error():
    with pytest.raises(RSEmbedError):
        EmbeddingRequest.from_json("{")


def test_the_command_of_a_manifest_is_the_request_again(tmp_path):
    raster = tmp_path / "scene.tif"
    raster.touch()
    given = {name: value for name, value in FULL.items() if name not in ("model_id", "backend")}
    request = ExportRequest(models={"thor": {"img": 64}}, backend=raster, format="zarr", **given)
    command = json.loads(json.dumps(request.command()))
    again = ExportRequest.of_command(command)
    assert again.requests() == [one.model_copy(update={"backend": str(raster.resolve())}) for one in request.requests()]
    assert again.command() == command
    assert again.requests()[0].knobs == {**FULL["knobs"], "img": 64}


@pytest.mark.parametrize(
    ("sensor", "read"),
    [({}, None), ({"": {"collection": S2.collection, "bands": ["B4", "B3"], "cloudy_pct": 10}}, S2), (None, None)],
)
def test_a_command_as_it_was_written_before_is_read(sensor, read):
    command = ExportRequest(models="thor").command() | {"sensor": sensor}
    del command["knobs"]
    assert ExportRequest.of_command(command).sensor == read


def test_of_an_export_only_what_the_caller_alone_has_is_left_out():
    command = ExportRequest(models=[get_card("thor")], backend=FieldProvider()).command()
    assert (command["models"], command["backend"], command["dtype"]) == (None, None, "float32")
