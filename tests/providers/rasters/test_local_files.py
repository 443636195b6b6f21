"""What files say, what users say of them, and what happens when they disagree."""

import json
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from asking import L1C, RGB, S1, S1_FLOAT, S2, ask, grid
from pyproj import CRS

from rs_embed.core.bands import Unit
from rs_embed.core.specs import TemporalSpec
from rs_embed.embedders.cards.thor import S2_BANDS_12 as S2_BANDS
from rs_embed.errors import (
    BandMismatch,
    NoImagery,
    PixelWarning,
    ReadError,
    SensorNotOffered,
    SpecError,
    UnitMismatch,
)
from rs_embed.providers.rasters.local import LocalRasters, Raster


@pytest.fixture
def dn(rng):
    return rng.integers(200, 4000, (3, 8, 9)).astype(np.uint16)


# Names of bands


def test_names_are_read_from_the_file_in_any_spelling(make_raster, dn):
    path = make_raster(dn, bands=("blue", "b8a", "B04"))
    np.testing.assert_array_equal(LocalRasters(path).fetch(ask(("B4", "B2", "B8A"))).values[0], dn[[2, 0, 1]])


def test_the_users_names_go_before_those_of_the_file(make_raster, dn):
    path = make_raster(dn, bands=("B4", "B3", "B2"))
    np.testing.assert_array_equal(LocalRasters(path, bands=["B2", "B3", "B4"]).fetch(ask()).values[0], dn[::-1])


def test_a_mapping_from_band_to_file_is_one_scene(make_raster, dn):
    files = {name: make_raster(dn[i : i + 1], f"{name}.tif") for i, name in enumerate(("B04", "green", "B2"))}
    chip = LocalRasters(files, dates="2022-06-03").fetch(ask())
    np.testing.assert_array_equal(chip.values[0], dn)
    assert chip.source.scene_ids == ("B04", "green", "B2")
    assert chip.times == (datetime(2022, 6, 3, tzinfo=UTC),)


def test_single_band_files_are_named_in_order(make_raster, dn):
    files = [make_raster(dn[i : i + 1], f"{i}.tif") for i in range(3)]
    np.testing.assert_array_equal(LocalRasters(files, bands=RGB).fetch(ask()).values[0], dn)


def test_a_file_without_names_is_refused_with_the_call_that_names_them(make_raster, dn):
    path = make_raster(dn)
    with pytest.raises(SensorNotOffered, match="3 bands \\(without names\\)") as caught:
        LocalRasters(path).fetch(ask())
    assert f"LocalRasters({str(path)!r}, bands=['B4', 'B3', 'B2'])" in str(caught.value)


def test_only_the_bands_that_are_missing_are_asked_for(make_raster, rng):
    pixels = rng.integers(200, 4000, (2, 4, 4)).astype(np.uint16)
    with pytest.raises(SensorNotOffered, match=r"Expected B3 of .*, got no file with them"):
        LocalRasters(make_raster(pixels, bands=("B4", "B2"))).require("s2", ask(("B4", "B3", "B2")).sensor)


def test_a_file_with_other_bands_is_refused_with_a_list_of_them(make_raster, dn):
    with pytest.raises(SensorNotOffered, match=r"3 bands \(VV, VH, angle\)"):
        LocalRasters(make_raster(dn, bands=("VV", "VH", "angle"))).fetch(ask())


def test_a_file_stands_in_only_for_the_collection_it_is_said_to_be(make_raster, dn):
    provider = LocalRasters(make_raster(dn, bands=RGB), collection=L1C)
    assert provider.fetch(ask(collection=L1C)).source.collection == L1C
    with pytest.raises(SensorNotOffered, match=f"only for {L1C}"):
        provider.fetch(ask())


@pytest.mark.parametrize("bands", [["B2", "B3"], ["B2", "B3", "B4", "B8"]])
def test_another_number_of_names_than_bands_is_refused(make_raster, dn, bands):
    with pytest.raises(BandMismatch, match=f"got {len(bands)} names for 3 bands"):
        LocalRasters(make_raster(dn), bands=bands)


def test_repeated_names_are_refused(make_raster, dn):
    path = make_raster(dn, bands=("B2", "B02", "B3"))
    with pytest.raises(SpecError, match="B2 repeated"):
        LocalRasters(path, bands=["B2", "B2", "B3"])
    with pytest.raises(BandMismatch, match="got B2 twice"):
        LocalRasters(path).fetch(ask(("B2", "B3")))


@pytest.mark.parametrize("bands", ["B2", [2, 3, 4]])
def test_band_names_are_a_list_of_names(make_raster, dn, bands):
    with pytest.raises(SpecError, match="list of band names"):
        LocalRasters(make_raster(dn), bands=bands)


@pytest.mark.parametrize("source", [[], {}, None, 3, [3]])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(SpecError):
        LocalRasters(source)


def test_a_mapping_and_a_list_of_names_contradict_each_other(make_raster, dn):
    with pytest.raises(SpecError, match="leave bands out"):
        LocalRasters({"B2": make_raster(dn[:1])}, bands=["B2"])


# Units and offsets


@pytest.mark.parametrize("unit", ["dn", Unit.DN, None])
def test_dn_stay_dn(make_raster, dn, unit):
    np.testing.assert_array_equal(LocalRasters(make_raster(dn, bands=RGB), unit=unit).fetch(ask()).values[0], dn)


@pytest.mark.parametrize("unit", ["reflectance", None])
def test_reflectance_becomes_dn(make_raster, dn, unit):
    path = make_raster((dn / 10_000).astype(np.float32), bands=RGB)
    chip = LocalRasters(path, unit=unit).fetch(ask())
    np.testing.assert_allclose(chip.values[0], dn, rtol=1e-6)
    assert any("taken as reflectance" in note for note in chip.source.notes) == (unit is None)


def test_a_scale_in_the_file_tells_the_unit_and_the_offset(make_raster, dn):
    stored = dn + np.uint16(1000)
    stored[:, 0, 0] = 0
    path = make_raster(stored, bands=RGB, nodata=0, scales=[1e-4] * 3, offsets=[-0.1] * 3)
    for provider in (LocalRasters(path), LocalRasters(path, unit="dn"), LocalRasters(path, unit="dn", offset=-1000)):
        chip = provider.fetch(ask())
        np.testing.assert_allclose(chip.values[0, :, 1:], dn[:, 1:], atol=0.01)
        assert np.isnan(chip.values[0, :, 0, 0]).all()
        assert chip.source.offset_applied == pytest.approx(-1000)


def test_a_unit_tag_and_a_scale_turn_stored_integers_into_db(make_raster, rng):
    stored = rng.integers(-2500, -500, (2, 8, 9)).astype(np.int16)
    path = make_raster(stored, bands=("VV", "VH"), units=("dB", "dB"), scales=(0.01, 0.01), nodata=-32768)
    chip = LocalRasters(path).fetch(ask(("VV", "VH"), collection=S1))
    np.testing.assert_allclose(chip.values[0], stored / 100, rtol=1e-5)
    power = LocalRasters(path).fetch(ask(("VV", "VH"), collection=S1_FLOAT))
    np.testing.assert_allclose(power.values[0], 10 ** (stored / 1000), rtol=1e-4)
    assert chip.source.notes == ()


def test_linear_power_becomes_db(make_raster, rng):
    power = rng.uniform(0.01, 0.5, (2, 8, 9)).astype(np.float32)
    chip = LocalRasters(make_raster(power, bands=("VV", "VH"))).fetch(ask(("VV", "VH"), collection=S1))
    np.testing.assert_allclose(chip.values[0], 10 * np.log10(power), rtol=1e-4)


@pytest.mark.parametrize(
    ("unit", "says"), [("reflectance", "looks like DN"), ("db", "cannot be computed|linear power")]
)
def test_a_unit_that_cannot_be_is_refused(make_raster, dn, unit, says):
    with pytest.raises(UnitMismatch, match=says):
        LocalRasters(make_raster(dn, bands=RGB), unit=unit).fetch(ask())


def test_reflectance_said_to_be_dn_is_refused(make_raster, dn):
    path = make_raster((dn / 10_000).astype(np.float32), bands=RGB)
    with pytest.raises(UnitMismatch, match="looks like reflectance"):
        LocalRasters(path, unit="dn").fetch(ask())


def test_bands_of_different_units_must_be_declared(make_raster, dn):
    path = make_raster(dn, bands=RGB, units=("dn", "dn", "reflectance"))
    with pytest.raises(UnitMismatch, match="in one unit"):
        LocalRasters(path).fetch(ask())
    LocalRasters(path, unit="dn").fetch(ask())


def test_the_offset_is_added_after_stored_zeros_are_masked(make_raster, dn):
    stored = dn + np.uint16(1000)
    stored[0, 0, 0] = 0
    stored[:, 1, 1] = 1000
    chip = LocalRasters(make_raster(stored, bands=RGB), offset=-1000).fetch(ask())
    assert np.isnan(chip.values[0, 0, 0, 0])
    assert (chip.values[0, :, 1, 1] == 0).all()  # a true zero, now that the offset is off
    assert chip.values[0, 1, 2, 3] == dn[1, 2, 3]
    assert chip.source.offset_applied == -1000.0
    assert not any("0-based" in note for note in chip.source.notes)


def test_an_offset_is_known_when_stated_and_unknown_when_not(make_raster, dn):
    path = make_raster(dn, bands=RGB)
    assert LocalRasters(path, offset=0).fetch(ask()).source.offset_applied == 0.0
    unknown = LocalRasters(path).fetch(ask()).source
    assert unknown.offset_applied is None
    assert any("0-based" in note for note in unknown.notes)


def test_unharmonised_dn_are_warned_of_until_the_offset_is_stated(make_raster, rng):
    path = make_raster(rng.integers(1100, 4000, (3, 20, 20)).astype(np.uint16), bands=RGB)
    with pytest.warns(PixelWarning, match="offset=-1000"):
        assert any("+1000" in note for note in LocalRasters(path).fetch(ask()).source.notes)
    LocalRasters(path, offset=-1000).fetch(ask())


def test_an_offset_is_refused_where_values_are_no_dn(make_raster, dn):
    path = make_raster((dn / 10_000).astype(np.float32), bands=RGB)
    with pytest.raises(UnitMismatch, match="leave the offset out"):
        LocalRasters(path, unit="reflectance", offset=-1000).fetch(ask())


@pytest.mark.parametrize(
    "declared",
    [{"unit": "counts"}, {"unit": 3}, {"offset": "x"}, {"offset": np.inf}, {"nodata": "0"}, {"collection": "S2"}],
)
def test_declarations_that_cannot_be_meant_are_refused_at_once(make_raster, dn, declared):
    with pytest.raises(SpecError):
        LocalRasters(make_raster(dn, bands=RGB), **declared)


# Dates


@pytest.fixture
def months(make_raster, dn):
    return [
        make_raster(dn + np.uint16(100 * i), f"{name}.tif", bands=RGB) for i, name in enumerate(("may", "june", "july"))
    ]


DATES = ["2022-05-10", date(2022, 6, 11), datetime(2022, 7, 12, 10, 30, tzinfo=UTC)]


@pytest.mark.parametrize(("how", "shift"), [("median", 100), ("mean", 100), ("mosaic", 0), ("first", 0)])
def test_dates_are_composited(months, dn, how, shift):
    chip = LocalRasters(months, dates=DATES, offset=0).fetch(ask(composite=how))
    np.testing.assert_allclose(chip.values[0], dn + np.float32(shift))
    assert chip.source.scene_ids == (("may",) if how == "first" else ("may", "june", "july"))
    assert chip.times[0].month == (5 if how == "first" else 6)


def test_only_the_dates_of_the_window_are_read_and_its_end_does_not_count(months, dn):
    provider = LocalRasters(months, dates=DATES)
    chip = provider.fetch(ask(window=TemporalSpec.range("2022-06-01", "2022-07-12")))
    np.testing.assert_array_equal(chip.values[0], dn + np.uint16(100))
    assert chip.times == (datetime(2022, 6, 11, tzinfo=UTC),)


def test_an_empty_window_names_the_dates_there_are(months):
    with pytest.raises(NoImagery, match="2022-05-10, 2022-06-11, 2022-07-12") as caught:
        LocalRasters(months, dates=DATES).fetch(ask(window=TemporalSpec.year(2020)))
    assert 'TemporalSpec.range("2022-05-10", "2022-07-13")' in str(caught.value)


def test_a_file_without_a_date_is_used_and_a_note_says_so(months):
    chip = LocalRasters(months[0]).fetch(ask(window=TemporalSpec.year(2020)))
    assert chip.times == (None,)
    assert "may: no date, the window was not checked." in chip.source.notes


@pytest.mark.parametrize(
    ("tags", "time"),
    [
        (
            {"ACQUISITION_DATETIME": "2022-06-11T10:10:31Z", "TIFFTAG_DATETIME": "2024:01:01 00:00:00"},
            (2022, 6, 11, 10, 10, 31),
        ),
        ({"TIFFTAG_DATETIME": "2022:06:11 10:10:31"}, (2022, 6, 11, 10, 10, 31)),
        ({"acquisition_datetime": "2022-06-11 12:10:31+02:00"}, (2022, 6, 11, 10, 10, 31)),
        ({"TIFFTAG_DATETIME": "last summer"}, None),
    ],
)
def test_dates_are_read_from_the_tags_of_the_file(make_raster, dn, tags, time):
    chip = LocalRasters(make_raster(dn, bands=RGB, tags=tags)).fetch(ask())
    assert chip.times == ((None if time is None else datetime(*time, tzinfo=UTC)),)


def test_what_a_raster_says_of_itself_goes_before_what_is_said_of_all(months, dn):
    own = Raster(months[0], time="2021-01-01", scene_id="S2A_X", offset=0.0)
    provider = LocalRasters([own, months[1]], dates=["2022-01-01", "2022-06-01"], offset=-100)
    chip = provider.fetch(ask(window=TemporalSpec.year(2021)))
    assert chip.source.scene_ids == ("S2A_X",)
    assert chip.source.offset_applied == 0.0
    both = provider.fetch(ask())
    assert both.source.offset_applied is None
    assert any("differ in the offset" in note for note in both.source.notes)


@pytest.mark.parametrize("dates", [["2022-01-01"], "2022-01-01", ["2022-01-01"] * 4])
def test_there_is_one_date_per_file(months, dates):
    with pytest.raises(SpecError, match="one date per scene"):
        LocalRasters(months, dates=dates)


@pytest.mark.parametrize("day", ["June", 2022, None])
def test_what_is_no_date_is_refused(months, day):
    with pytest.raises(SpecError, match="ISO date"):
        LocalRasters(months[:1], dates=[day])


def test_files_that_do_not_cover_the_place_are_left_out(make_raster, dn):
    from affine import Affine

    near = make_raster(dn, "near.tif", bands=RGB)
    far = make_raster(dn, "far.tif", bands=RGB, transform=Affine(10, 0, 700_000, 0, -10, 5_300_000))
    chip = LocalRasters([far, near]).fetch(ask(geobox=grid(0, 0, 9, 8), composite="first"))
    np.testing.assert_array_equal(chip.values[0], dn)
    assert chip.source.scene_ids == ("near",)


@pytest.mark.parametrize("how", ["median", "mosaic", "first"])
def test_files_with_only_nodata_at_the_place_are_left_out(make_raster, dn, how):
    empty, full = make_raster(dn * np.uint16(0), "empty.tif", bands=RGB), make_raster(dn, "full.tif", bands=RGB)
    chip = LocalRasters([empty, full], dates=["2022-01-01", "2022-07-01"]).fetch(ask(composite=how))
    np.testing.assert_array_equal(chip.values[0], dn)
    assert chip.source.scene_ids == ("full",)
    assert chip.times == (datetime(2022, 7, 1, tzinfo=UTC),)


def test_scenes_of_two_sensors_may_stand_in_one_list(make_raster, dn, rng):
    radar = make_raster(rng.normal(-12, 3, (2, 8, 9)).astype(np.float32), "s1.tif", bands=("VV", "VH"))
    provider = LocalRasters([make_raster(dn, bands=RGB), radar])
    assert provider.fetch(ask()).source.scene_ids == ("scene",)
    assert provider.fetch(ask(("VV", "VH"), collection=S1)).source.scene_ids == ("s1",)


# Files that cannot be read


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ReadError, match=r"no file .*gone\.tif"):
        LocalRasters(tmp_path / "gone.tif")


@pytest.mark.parametrize("path", ["https://example.com/scene.tif", "s3://bucket/scene.tif", "/vsicurl/https://x.tif"])
def test_rasters_on_the_network_are_not_asked_for(path):
    with pytest.raises(ReadError, match="download it"):
        LocalRasters(path)


@pytest.mark.parametrize("content", [b"", b"II*\0" + b"x" * 60, b"not a raster at all"])
def test_a_file_that_is_no_raster_is_named(tmp_path, content):
    path = tmp_path / "junk.tif"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"junk\.tif"):
        LocalRasters(path)


def test_a_directory_is_no_raster(tmp_path):
    with pytest.raises(ReadError, match="directory"):
        LocalRasters(tmp_path)


@pytest.mark.parametrize("query", [ask(), ask(geobox=grid(0.5, 0.5, 200, 200))])
def test_a_file_cut_short_is_named_whichever_way_it_is_read(make_raster, rng, capfd, query):
    path = make_raster(rng.integers(200, 4000, (3, 300, 300)).astype(np.uint16), bands=RGB)
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(ReadError, match=r"scene\.tif"):
        LocalRasters(path).fetch(query)
    assert capfd.readouterr().err == ""


def test_a_file_removed_meanwhile_is_named(make_raster, dn):
    path = make_raster(dn, bands=RGB)
    provider = LocalRasters(path)
    path.unlink()
    with pytest.raises(ReadError, match=r"scene\.tif"):
        provider.fetch(ask())
    with pytest.raises(ReadError, match="is gone"):
        provider.identity()


def test_a_file_without_a_place_is_refused_with_the_command_that_gives_it_one(make_raster, dn, recwarn):
    with pytest.raises(ReadError, match="gdal_translate -a_srs"):
        LocalRasters(make_raster(dn, bands=RGB, crs=None))
    assert len(recwarn) == 0


def test_complex_radar_is_refused(make_raster):
    with pytest.raises(ReadError, match="complex"):
        LocalRasters(make_raster(np.ones((1, 4, 4), np.complex64), bands=("VV",)))


# Other formats


def test_a_vrt_is_read_through(make_raster, dn, tmp_path):
    source = make_raster(dn, bands=RGB)
    with rasterio.open(source) as dataset:
        wkt, affine = dataset.crs.to_wkt(), dataset.transform
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>{name}</Description><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source.name}</SourceFilename><SourceBand>{i}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for i, name in enumerate(RGB, start=1)
    )
    vrt = tmp_path / "scene.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="9" rasterYSize="8"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{', '.join(map(str, affine.to_gdal()))}</GeoTransform>{bands}</VRTDataset>"
    )
    np.testing.assert_array_equal(LocalRasters(vrt).fetch(ask()).values[0], dn)


def test_a_cloud_optimised_geotiff_with_overviews_is_read_at_full_size(make_raster, rng, tmp_path):
    values = rng.integers(200, 4000, (3, 600, 600)).astype(np.uint16)
    source = make_raster(values, bands=RGB, tiled=True)
    with rasterio.open(source) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "cog.tif", driver="COG", BLOCKSIZE=128)
    chip = LocalRasters(tmp_path / "cog.tif").fetch(ask(geobox=grid(100, 200, 50, 40)))
    np.testing.assert_array_equal(chip.values[0], values[:, 200:240, 100:150])


def _write_array(
    folder: Path, values: np.ndarray, dims: list[str], attributes: dict[str, object], version: int
) -> None:
    """One uncompressed array of one chunk, as xarray lays it out."""
    folder.mkdir(parents=True)
    if version == 2:
        layout = {
            "zarr_format": 2, "shape": values.shape, "chunks": values.shape, "dtype": values.dtype.str,
            "compressor": None, "fill_value": 0, "order": "C", "filters": None,
        }  # fmt: skip
        (folder / ".zarray").write_text(json.dumps(layout))
        (folder / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": dims} | attributes))
        (folder / (".".join("0" * values.ndim) or "0")).write_bytes(values.tobytes())
        return
    layout = {
        "zarr_format": 3, "node_type": "array", "shape": values.shape, "data_type": str(values.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": values.shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": attributes, "dimension_names": dims,
    }  # fmt: skip
    (folder / "zarr.json").write_text(json.dumps(layout))
    chunk = folder.joinpath("c", *("0" * values.ndim))
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(values.tobytes())


def _write_store(store: Path, arrays: dict[str, np.ndarray], version: int) -> Path:
    store.mkdir()
    mark, content = (
        (".zgroup", {"zarr_format": 2}) if version == 2 else ("zarr.json", {"zarr_format": 3, "node_type": "group"})
    )
    (store / mark).write_text(json.dumps(content))
    _write_array(store / "x", 600_005 + 10.0 * np.arange(9), ["x"], {}, version)
    _write_array(store / "y", 5_299_995 - 10.0 * np.arange(8), ["y"], {}, version)
    _write_array(store / "spatial_ref", np.array(0), [], {"crs_wkt": CRS(32633).to_wkt()}, version)
    for name, values in arrays.items():
        dims = ["band", "y", "x"][-values.ndim :]
        _write_array(store / name, values, dims, {"grid_mapping": "spatial_ref"}, version)
    return store


def test_a_zarr_store_of_one_array_per_band_is_one_scene(tmp_path, dn):
    store = _write_store(tmp_path / "scene.zarr", dict(zip(("B04", "B03", "B02"), dn, strict=True)), 2)
    provider = LocalRasters(store, offset=0)
    np.testing.assert_array_equal(provider.fetch(ask()).values[0], dn)
    before = provider.identity()
    (store / "B04" / "0.0").write_bytes(dn[1].tobytes())
    assert provider.identity() != before


def test_a_zarr_store_of_one_cube_needs_names(tmp_path, dn):
    store = _write_store(tmp_path / "cube.zarr", {"reflectance": dn}, 2)
    np.testing.assert_array_equal(LocalRasters(store, bands=RGB).fetch(ask()).values[0], dn)
    with pytest.raises(SensorNotOffered, match="without names"):
        LocalRasters(store).fetch(ask())


@pytest.mark.skipif(rasterio.__gdal_version__ >= "3.11", reason="may read Zarr version 3")
@pytest.mark.parametrize("names", [("cube",), ("B04", "B03")])
def test_a_zarr_store_of_version_3_is_refused_with_the_call_that_writes_version_2(tmp_path, dn, names):
    arrays = {"cube": dn} if names == ("cube",) else dict(zip(names, dn, strict=False))
    with pytest.raises(ReadError, match="zarr_format=2"):
        LocalRasters(_write_store(tmp_path / "new.zarr", arrays, 3))


def test_a_store_that_is_no_zarr_is_named(tmp_path):
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / ".zgroup").write_text("{")
    with pytest.raises(ReadError, match=r"broken\.zarr"):
        LocalRasters(tmp_path / "broken.zarr")


# Identity, threads


def test_the_identity_follows_file_and_declarations(make_raster, dn):
    path = make_raster(dn, bands=RGB)
    known = {
        LocalRasters(path).identity(),
        LocalRasters(path, offset=0).identity(),
        LocalRasters(path, unit="dn").identity(),
        LocalRasters(path, dates="2022-01-01").identity(),
        LocalRasters(path, bands=["B2", "B3", "B4"]).identity(),
    }
    assert len(known) == 5
    assert LocalRasters(str(path)).identity() in known
    make_raster(dn + np.uint16(1), bands=RGB)
    assert LocalRasters(path).identity() not in known


@pytest.mark.slow
def test_threads_get_their_own_pixels(make_raster, rng):
    values = rng.integers(200, 4000, (12, 64, 64)).astype(np.uint16)
    provider = LocalRasters(make_raster(values, bands=S2_BANDS))
    wrong: list[int] = []

    def read(offset: int) -> None:
        chip = provider.fetch(ask(("B2", "B8"), grid(offset, 0, 16, 16)))
        if not np.array_equal(chip.values[0], values[[1, 7], :16, offset : offset + 16]):
            wrong.append(offset)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_shared_names_of_units_and_bands_come_with_the_chip(make_raster, dn):
    chip = LocalRasters(make_raster(dn, bands=RGB)).fetch(ask())
    assert [(band.name, band.unit) for band in chip.bands] == [(name, Unit.DN) for name in RGB]
    assert (chip.source.provider, chip.source.collection) == ("local", S2)
