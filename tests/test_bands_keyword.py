"""`bands=` picks some of a modality's bands, by the names of the collection or of the model."""

import numpy as np
import pytest
from typer.testing import CliRunner

from rs_embed import PointBuffer, SensorSpec, get_embedding, get_embeddings, inspect_chip, plan_embedding
from rs_embed.cli.main import app
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import BandMismatch, SpecError
from rs_embed.testing import FieldProvider

PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=480)
HLS = ("B2", "B3", "B4", "B8A", "B11", "B12")
"""The six that Landsat and HLS have too."""
NAMES = {
    "terramind_1_0_tiny": ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"),
    "thor_1_0_tiny": tuple(get_card("thor").modalities[0].stats[band].model_name for band in HLS),
}
"""What the models call them."""
pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.ScaleWarning")


def plan(model_id: str = "terramind_1_0_tiny", **options):
    return plan_embedding(model_id, PLACE, backend=FieldProvider(), pretrained=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("model_id", NAMES)
def test_both_names_of_bands_mean_the_sensor_with_those_bands(model_id):
    sensor = get_card(model_id).modalities[0].sensor
    spelt = SensorSpec(sensor.collection, HLS, fill_value=sensor.fill_value)
    call = {"model_id": model_id, "spatial": PLACE, "backend": FieldProvider(), "pretrained": False}
    expected = get_embedding(**call, sensor=spelt)
    for bands in (HLS, list(NAMES[model_id]), (*HLS[:3], *NAMES[model_id][3:])):
        embedding = get_embedding(**call, bands=bands)
        np.testing.assert_array_equal(embedding.data, expected.data)
        assert embedding.meta.inputs[0].bands == HLS
        assert embedding.meta.fingerprint == expected.meta.fingerprint
    call.pop("spatial")
    (batch,) = get_embeddings(**call, places=[PLACE], bands=HLS)
    np.testing.assert_array_equal(batch.data, expected.data)
    assert np.abs(get_embedding(**call, spatial=PLACE).data - expected.data).max() > 1e-4


def test_the_order_of_bands_is_the_order_of_the_channels_of_an_array():
    dn = FieldProvider().fetch(plan().items[0].queries[0]).select(HLS).values[0]
    call = {"model_id": "terramind_1_0_tiny", "pretrained": False}
    six = get_embedding(**call, input_chw=dn, bands=HLS)
    turned = get_embedding(**call, input_chw=dn[::-1].copy(), bands=HLS[::-1])
    np.testing.assert_allclose(turned.data, six.data, atol=2e-5)
    with pytest.raises(BandMismatch, match="Expected 6 bands"):
        get_embedding(**call, input_chw=dn[:5], bands=HLS)


def test_several_modalities_have_bands_by_name_and_one_that_is_left_out_keeps_its_own():
    def bands_of(**options):
        return {query.modality: query.sensor.bands for query in plan(**options).items[0].queries}

    assert bands_of(modality="S2L2A+S1GRD", bands={"S1GRD": ["VH"]})["S2L2A"][0] == "B1"
    assert bands_of(modality="S2L2A+S1GRD", bands={"S1GRD": ["VH"]})["S1GRD"] == ("VH",)
    assert bands_of(bands={"S1GRD": ["VH"], "RGB": ["BLUE"]}) == {"S1GRD": ("VH",), "RGB": ("B2",)}
    assert bands_of(modality="S1GRD", bands=["VH"]) == {"S1GRD": ("VH",)}


def test_the_variable_for_modalities_still_counts(monkeypatch):
    monkeypatch.setenv("RS_EMBED_TERRAMIND_MODALITY", "RGB")
    assert plan(bands=["RED", "GREEN"]).items[0].queries[0].sensor.bands == ("B4", "B3")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"bands": ["B2", "BLEU"]}, BandMismatch, "does not know the band 'BLEU'"),
        ({"bands": ["BLEU"]}, BandMismatch, "did you mean 'BLUE'?"),
        ({"bands": ["b8a"]}, BandMismatch, "did you mean 'B8A'?"),
        ({"bands": ["B10"]}, BandMismatch, "B8A (NIR_NARROW)"),
        ({"bands": ["B2", "BLUE"]}, SpecError, "each band once"),
        ({"bands": []}, SpecError, "Expected a list of bands"),
        ({"bands": "B2,B3"}, SpecError, 'bands=["B2", "B3", "B4"]'),
        ({"bands": 3}, SpecError, "Expected a list of bands, got 3"),
        ({"bands": ["VH"], "modality": "S2L2A+S1GRD"}, SpecError, "bands per modality (S2L2A, S1GRD), got one list"),
        ({"bands": {"DEM": ["DEM"]}, "modality": "S2L2A"}, SpecError, "bands for S2L2A, got some for DEM"),
        ({"bands": {"s2": ["B2"]}}, SpecError, "no modality 's2'"),
        ({"bands": ["B2"], "sensor": SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B3",))}, SpecError, "got both"),
    ],
)
def test_bands_that_cannot_be_meant_are_refused_before_anything_is_fetched(options, error, says):
    provider = FieldProvider()
    with pytest.raises(error) as caught:
        get_embedding("terramind_1_0_tiny", PLACE, backend=provider, pretrained=False, **options)
    assert says in str(caught.value)
    assert caught.value.fix
    assert provider.queries == []


@pytest.mark.parametrize("bands", [HLS, get_card("mosaiks").modalities[0].sensor.bands[::-1]])
def test_a_model_with_fixed_filters_refuses_other_bands_and_another_order(bands):
    with pytest.raises(BandMismatch, match="in the model's order"):
        plan_embedding("mosaiks_rcf", PLACE, backend=FieldProvider(), bands=bands)


def test_a_chip_is_inspected_in_the_bands_asked_for():
    report = inspect_chip("terramind", PLACE, backend=FieldProvider(), bands=["SWIR_1", "BLUE"])
    assert [band.band for band in report.bands] == ["B11", "B2"]


def test_the_command_line_takes_them_too():
    words = ["--backend", "sample", "--only-bands", "BLUE,B3"]
    shown = CliRunner().invoke(app, ["inspect", "terramind", *words])
    assert shown.exit_code == 0
    assert "S2L2A B2" in shown.stdout and "S2L2A B3" in shown.stdout and "S2L2A B4" not in shown.stdout
    dry = CliRunner().invoke(app, ["embed", "terramind", *words, "--dry-run"])
    assert "COPERNICUS/S2_SR_HARMONIZED B2,B3 on" in dry.stdout
