"""Models that are told where, and shown nothing: GeoCLIP with its trained weights, SatCLIP through a hub.

`golden_trained/geoclip_location.npz` is the authors' own `location_encoder.py` of geoclip 1.3.0 (torch 2.15, CPU) with
the weights in the same wheel: 12 places, in float32 and in float64, and their projected coordinates.
"""

import importlib.metadata
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from pyproj import Proj, Transformer
from typer.testing import CliRunner

from rs_embed import (
    BBox,
    Embedding,
    OutputSpec,
    PointBuffer,
    Region,
    SensorSpec,
    TemporalSpec,
    describe_model,
    export_embeddings,
    get_embedding,
    get_embeddings,
    inspect_chip,
    open_run,
    plan_embedding,
)
from rs_embed.cli.main import app
from rs_embed.embedders.card import PackagedWeights
from rs_embed.embedders.catalog import get_card, list_cards
from rs_embed.embedders.weights.load import locate
from rs_embed.encoders.geoclip import equal_earth
from rs_embed.encoders.satclip import SatClipEncoder
from rs_embed.errors import SpecError, WeightsCorrupt, WeightsNotFound
from rs_embed.testing import FieldProvider

GOLDEN = dict(np.load(Path(__file__).parents[1] / "data/golden_trained/geoclip_location.npz"))
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=500)
YEAR = TemporalSpec.year(2022)
GRID = OutputSpec.grid()
FIELD = [[12.93, 47.76], [12.95, 47.76], [12.93, 47.78], [12.93, 47.76]]
"""A triangle: the middle of the box around it is (12.94, 47.77)."""


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_vector_of_a_place_is_that_of_the_authors_with_their_trained_weights():
    places = [PointBuffer(lon, lat, 500) for lon, lat in GOLDEN["lonlat"]]
    found = np.stack([one.data for one in get_embeddings("geoclip_location", places)])
    np.testing.assert_allclose(found, GOLDEN["vectors_fp64"], atol=5e-6)
    # Theirs codes the place in float32, where the shortest waves lose three digits.
    np.testing.assert_allclose(found, GOLDEN["vectors_fp32"], atol=5e-5)
    here, beside, away, sydney = found[:4]
    assert 0.24 < np.linalg.norm(here) < 0.27
    assert cosine(here, beside) > 0.98 > 0.5 > cosine(here, away) > 0 > cosine(here, sydney)


def test_the_projection_is_the_equal_earth_map_of_proj():
    wanted = np.stack(Proj("+proj=eqearth +R=1")(*GOLDEN["lonlat"].T), axis=-1)
    np.testing.assert_allclose(equal_earth(torch.from_numpy(GOLDEN["lonlat"])).numpy(), wanted, atol=1e-9)


def test_a_place_needs_neither_days_nor_a_backend_and_is_what_the_metadata_tell():
    embedding = get_embedding("geoclip", PLACE)
    meta = embedding.meta
    assert (meta.kind, meta.modality, meta.inputs, meta.temporal) == ("location", ("location",), (), None)
    assert (meta["lon"], meta["lat"]) == (12.94, 47.77)
    assert meta.weights.startswith(
        "package:geoclip@1.3.0:geoclip/model/weights/location_encoder_weights.pth#sha256:94b8"
    )
    assert embedding.geobox is not None and embedding.geobox.shape == (1, 1)
    assert (meta.gsd_m, meta.valid_fraction, meta.nodata_tokens) == (1000, 1, 0)
    assert type(meta).model_validate(json.loads(meta.model_dump_json())) == meta


def test_days_and_a_backend_change_nothing_as_nobody_is_asked():
    provider = FieldProvider()
    plain = get_embedding("geoclip", PLACE)
    for options in ({"temporal": YEAR}, {"backend": provider}, {"backend": "gee"}, {"modality": "location"}):
        other = get_embedding("geoclip", PLACE, **options)
        np.testing.assert_array_equal(other.data, plain.data)
        assert (other.meta.fingerprint, other.meta.temporal) == (plain.meta.fingerprint, None)
    assert provider.queries == []
    assert get_embedding("geoclip", replace(PLACE, buffer_m=400)).meta.fingerprint != plain.meta.fingerprint


def test_a_grid_is_a_lattice_of_points_whose_cells_have_the_vectors_of_their_middles():
    grid = get_embedding("geoclip", PLACE, output=GRID)
    assert grid.data.shape == (512, 4, 4)
    assert grid.geobox.resolution.x == 250
    assert (grid.meta.grid_kind, grid.valid.min()) == ("cells", 1)
    fine = get_embedding("geoclip", PLACE, output=GRID, cell_m=100)
    assert fine.data.shape == (512, 10, 10)
    to_degrees = Transformer.from_crs(str(fine.geobox.crs), "EPSG:4326", always_xy=True)
    for row, col in ((0, 0), (9, 3)):
        lon, lat = to_degrees.transform(*(fine.geobox.affine @ (col + 0.5, row + 0.5)))
        alone = get_embedding("geoclip", PointBuffer(lon, lat, 10)).data
        np.testing.assert_allclose(fine.data[:, row, col], alone, atol=1e-6)
    assert fine.meta["lat"] > 47.77 > fine.meta["lat"] - 0.01


def test_a_box_and_a_polygon_are_told_by_their_middle_and_a_grid_keeps_to_the_polygon():
    point = get_embedding("geoclip", PLACE).data
    box = get_embedding("geoclip", BBox(12.93, 47.76, 12.95, 47.78))
    polygon = get_embedding("geoclip", Region(FIELD))
    for told in (box, polygon):  # of a box in metres around them, which the degrees lie a little askew in
        assert (told.meta["lon"], told.meta["lat"]) == pytest.approx((12.94, 47.77), abs=1e-3)
        assert cosine(told.data, point) > 0.999
    grid = get_embedding("geoclip", Region(FIELD), output=GRID)
    outside = np.isnan(grid.data[0])
    assert 0.2 < outside.mean() < 0.6
    assert (grid.valid[outside] == 0).all()


def test_it_runs_beside_a_model_of_imagery_with_the_backend_of_that():
    provider = FieldProvider()
    places = [PLACE, PointBuffer(12.96, 47.77, 500)]
    both = get_embeddings(["geoclip", "mosaiks_rcf"], places, YEAR, backend=provider)
    assert len(provider.queries) == 2
    for found, place in zip(both["geoclip_location"], places, strict=True):
        alone = get_embedding("geoclip", place)
        np.testing.assert_allclose(found.data, alone.data, atol=1e-7)
        assert found.meta.fingerprint == alone.meta.fingerprint


def test_a_vector_and_a_grid_come_back_from_a_file(tmp_path):
    for output in (OutputSpec.pooled(), GRID):
        made = get_embedding("geoclip", PLACE, output=output)
        again = Embedding.load(made.save(tmp_path / f"{output.kind}.npz"))
        np.testing.assert_array_equal(again.data, made.data)
        assert (again.meta, again.geobox) == (made.meta, made.geobox)


@pytest.mark.slow
@pytest.mark.parametrize("output", [OutputSpec.pooled(), GRID], ids=lambda one: one.kind)
def test_an_export_has_the_vectors_of_single_calls_and_asks_nobody(tmp_path, output):
    places = [PointBuffer(12.94 + i / 50, 47.77, 500) for i in range(5)]
    planned = export_embeddings("geoclip", places, tmp_path / "run", output=output, dry_run=True)
    assert "fetches:   0 chips via none" in str(planned)
    report = export_embeddings(["geoclip"], places, tmp_path / "run", output=output, unit_rows=2)
    assert (report.ok, report.failed) == (5, 0)
    again = export_embeddings(["geoclip"], places, tmp_path / "run", output=output, unit_rows=2, backend="gee")
    assert (again.ok, again.failed) == (5, 0)
    run = open_run(tmp_path / "run")
    alone = get_embedding("geoclip", places[3], output=output).data
    found = run.grids()["3"] if output == GRID else run.matrix()[3]
    np.testing.assert_allclose(np.asarray(found), alone, atol=1e-6)
    assert run.header().source_data == ()


def test_a_plan_names_the_cells_and_survives_being_sent():
    plan = plan_embedding("geoclip", PLACE, output=GRID)
    assert "location of EPSG:32633, 4 x 4 px of 250 m" in str(plan)
    again = pickle.loads(pickle.dumps(plan))
    assert (
        again.fingerprint() == plan.fingerprint() == plan_embedding("geoclip", PLACE, YEAR, GRID, "gee").fingerprint()
    )
    assert plan_embedding("geoclip", PLACE, output=GRID, cell_m=100).fingerprint() != plan.fingerprint()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"spatial": None}, "Expected a place"),
        ({"sensor": SensorSpec("COPERNICUS/S1_GRD", ("VV",))}, "only a place for geoclip_location, got sensor"),
        ({"bands": ["B2"]}, "only a place for geoclip_location, got bands"),
        ({"output": OutputSpec.grid("dense")}, "no dense grid"),
        ({"modality": "s2"}, "no modality 's2'"),
        ({"input_chw": np.zeros((3, 8, 8))}, "Expected no pixels"),
        ({"input_prep": "resize"}, "native size only"),
        ({"output": GRID, "cell_m": 2000}, "at least one pixel"),
        ({"temporal": "2022"}, "Expected a TemporalSpec"),
    ],
)
def test_what_it_has_no_use_for_is_refused(options, says):
    with pytest.raises(SpecError) as caught:
        get_embedding("geoclip", **({"spatial": PLACE} | options))
    assert says in str(caught.value)
    assert caught.value.fix


def test_there_are_no_chips_to_look_at():
    with pytest.raises(SpecError, match="takes only a location"):
        inspect_chip("geoclip", PLACE)


def with_weights(**other: str):
    card = get_card("geoclip")
    return replace(card, id="mine", weights=replace(card.weights, **other))


def test_a_package_that_is_missing_or_another_version_is_told_with_the_fix():
    with pytest.raises(WeightsNotFound) as caught:
        get_embedding(with_weights(package="no-such-package"), PLACE)
    assert "pip install --no-deps no-such-package" in caught.value.fix
    with pytest.raises(WeightsNotFound, match=r"got version 1\.3\.0 without it"):
        get_embedding(with_weights(file="geoclip/model/weights/others.pth"), PLACE)
    with pytest.raises(WeightsCorrupt) as caught:
        get_embedding(with_weights(sha256="0" * 64), PLACE)
    assert caught.value.facts["found"].startswith("sha256 94b8")


def test_the_file_may_be_named_in_place_of_the_package(monkeypatch):
    weights = get_card("geoclip").weights
    assert isinstance(weights, PackagedWeights)
    file = importlib.metadata.distribution("geoclip").locate_file(weights.file)
    trained = get_embedding("geoclip", PLACE)
    by_keyword = get_embedding("geoclip", PLACE, ckpt=file)
    monkeypatch.setenv("RS_EMBED_GEOCLIP_CKPT", str(file))
    by_variable = get_embedding("geoclip", PLACE)
    for one in (by_keyword, by_variable):
        np.testing.assert_array_equal(one.data, trained.data)
        assert one.meta.weights.startswith("ckpt:location_encoder_weights.pth#sha256:")


@pytest.mark.parametrize("model_id", [card.id for card in list_cards() if card.kind == "location"])
def test_every_location_model_runs_with_random_weights_and_describes_itself(model_id):
    facts = describe_model(model_id)
    assert (facts["modalities"], facts["place_modalities"], facts["default_backend"]) == ([], ["location"], "none")
    vector = get_embedding(model_id, PLACE, pretrained=False)
    assert vector.data.shape == (facts["dim"],)
    assert vector.meta.warning
    exact = get_embedding(model_id, PLACE, output=GRID, pretrained=False)
    fast = get_embedding(model_id, PLACE, output=GRID, pretrained=False, precision="bf16")
    assert cosine(exact.data.ravel(), fast.data.ravel()) > 0.999


def test_the_command_line_embeds_a_place_without_a_backend():
    runner = CliRunner()
    answer = runner.invoke(app, ["embed", "geoclip_location", "--lon", "12.94", "--lat", "47.77", "--buffer", "500"])
    assert answer.exit_code == 0, answer.output
    assert "No imagery, as geoclip_location sees it:" in answer.output
    told = runner.invoke(app, ["describe", "geoclip_location"])
    assert told.exit_code == 0, told.output
    assert "package geoclip / geoclip/model/weights" in told.output.replace("\n", "")


@pytest.mark.parametrize(("lon", "lat"), [(180, -16.5), (-180, 0), (0, 90), (77, -90), (0, 0)])
def test_poles_and_the_antimeridian_have_vectors(lon, lat):
    for model_id in ("geoclip", "satclip"):
        vector = get_embedding(model_id, PointBuffer(lon, lat, 1000), pretrained=model_id == "geoclip").data
        assert np.isfinite(vector).all()


def test_satclip_takes_its_encoder_out_of_the_published_file_and_leaves_the_other(tmp_path):
    card = get_card("satclip_resnet18_l10")
    encoder = SatClipEncoder(**card.arch)
    encoder.init_random(5)
    state = {f"model.location.{name}": tensor.double() for name, tensor in encoder.state_dict().items()}
    state |= {"model.visual.head.weight": torch.zeros(4, 4), "model.logit_scale": torch.zeros(())}
    made = tmp_path / card.weights.file
    torch.save({"epoch": 1, "state_dict": state, "hyper_parameters": {"legendre_polys": 10}}, made)
    with HubServer({card.weights.hub: {"main": {card.weights.file: made.read_bytes()}}}) as hub:
        file = locate(card.weights, ckpt=None, offline=False, cache_dir=tmp_path / "cache", endpoint=hub.endpoint)
    assert file.id.startswith("hub:microsoft/SatCLIP-ResNet18-L10@")
    found = get_embedding(card.id, PLACE, ckpt=file.path)
    assert "not used: logit_scale (1), visual (1)" in found.meta.weights_note
    assert "stored as float64" in found.meta.weights_note
    with torch.no_grad():
        wanted = encoder(torch.tensor([[[[12.94, 47.77]]]], dtype=torch.float64)).values
    np.testing.assert_allclose(found.data, wanted[0, 0].numpy(), atol=1e-5)
