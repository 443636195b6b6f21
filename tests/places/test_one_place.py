"""One place for one call, in whatever form the user has it."""

import json

import geopandas
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box, mapping

from rs_embed import BBox, OutputSpec, PointBuffer, Region, TemporalSpec, get_embedding, get_embeddings, inspect_chip
from rs_embed.errors import SpecError
from rs_embed.places import read_place, read_places
from rs_embed.testing import FieldProvider

MODEL, YEAR = "mosaiks_rcf", TemporalSpec.year(2021)
POINT, AOI = PointBuffer(12.5, 47.0, 160), box(12.500, 47.000, 12.510, 47.004)
TWO = MultiPolygon([box(12.500, 47.000, 12.502, 47.004), box(12.508, 47.000, 12.510, 47.004)])


def embed(place, **options):
    return get_embedding(MODEL, place, backend=FieldProvider(), **({"temporal": YEAR} | options)).data


@pytest.mark.parametrize(
    "given",
    [(12.5, 47.0), [12.5, 47.0], np.array([12.5, 47.0]), np.float32([12.5, 47]), [(12.5, 47.0)], Point(12.5, 47.0)]
    + [pd.DataFrame({"lon": [12.5], "lat": [47.0]}), {"type": "Point", "coordinates": [12.5, 47.0]}]
    + [geopandas.GeoSeries([Point(12.5, 47.0)], crs=4326), pd.Series([Point(12.5, 47.0)])],
    ids=lambda given: type(given).__name__,
)
def test_a_point_in_any_form_is_the_square_around_it(given):
    assert read_place(given, YEAR, 160) == (POINT, YEAR)


def forms_of(geometry):
    feature = {"type": "Feature", "properties": {"name": "x"}, "geometry": mapping(geometry)}
    series = geopandas.GeoSeries([geometry], crs=4326)
    return [geometry, [geometry], mapping(geometry), feature, {"type": "FeatureCollection", "features": [feature]}] + [
        series,
        geopandas.GeoDataFrame(geometry=series),
        Region(geometry),
        [Region(geometry)],
    ]


@pytest.mark.parametrize("at", range(9))
@pytest.mark.parametrize("geometry", [AOI, TWO], ids=["polygon", "multipolygon"])
def test_a_polygon_in_any_form_is_its_region(geometry, at):
    assert read_place(forms_of(geometry)[at]) == (Region(geometry), None)


def test_the_call_takes_a_file_of_one_place_a_geometry_and_a_row_of_places(tmp_path):
    geopandas.GeoDataFrame({"name": ["x"]}, geometry=[AOI], crs=4326).to_file(tmp_path / "aoi.geojson")
    wanted = embed(Region(AOI))

    places = read_places(tmp_path / "aoi.geojson")
    for given in (str(tmp_path / "aoi.geojson"), tmp_path / "aoi.geojson", AOI, places, places[0]):
        np.testing.assert_array_equal(embed(given), wanted)
    np.testing.assert_array_equal(get_embeddings(MODEL, [AOI], YEAR, backend=FieldProvider())[0].data, wanted)
    np.testing.assert_array_equal(embed((12.5, 47.0), buffer_m=160), embed(POINT))
    report = inspect_chip(MODEL, (12.5, 47.0), YEAR, FieldProvider(), buffer_m=160)
    assert next(iter(report.chips.values())).shape_px == (32, 32)


def test_a_table_of_one_row_brings_its_days():
    row = pd.DataFrame({"lon": [12.5], "lat": [47.0], "buffer_m": [160], "year": [2020]})

    assert read_place(row) == (POINT, TemporalSpec.year(2020))
    with pytest.raises(SpecError, match="days once"):
        read_place(row, YEAR)


def test_a_region_of_several_parts_leaves_out_what_lies_between_them():
    grid = get_embedding(MODEL, TWO, YEAR, OutputSpec.grid(), FieldProvider())
    whole = get_embedding(MODEL, AOI, YEAR, OutputSpec.grid(), FieldProvider())

    assert grid.data.shape == whole.data.shape
    inside = np.isfinite(grid.data).all(axis=0)
    assert inside[:, 0].all() and inside[:, -1].all() and not inside[:, inside.shape[1] // 2].any()
    np.testing.assert_array_equal(grid.data[:, inside], whole.data[:, inside])
    assert "others=" in grid.meta.spatial and "others=" not in whole.meta.spatial
    assert grid.meta.fingerprint != whole.meta.fingerprint


def test_the_fingerprint_of_a_polygon_of_one_part_is_what_it_was_before_there_were_others():
    polygon = Polygon([(12.5, 47.0), (12.506, 47.0), (12.506, 47.004), (12.5, 47.0)])
    from dataclasses import asdict

    from rs_embed.pipeline.plan import place_facts

    facts = {"polygon": asdict(Region(polygon))["polygon"], "crs": "EPSG:4326"}
    assert place_facts(Region(polygon)) == ["Region", facts]
    assert (
        Region(Region(TWO).polygon, others=Region(TWO).others)
        == Region(TWO)
        == Region(json.loads(json.dumps(mapping(TWO))))
    )


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ([(1, 2), (3, 4)], {"buffer_m": 10}, "Expected one place, got 2"),
        ([], {}, "empty"),
        ((12.5, 47.0), {}, "Expected a buffer"),
        (Point(12.5, 47.0), {}, "with a buffer_m"),
        (Point(500000, 5200000), {"buffer_m": 10}, "lon between -180 and 180"),
        (LineString([(0, 0), (1, 1)]), {}, "LineString"),
        (Polygon(), {}, "Expected a polygon"),
        ({"type": "Polygon"}, {}, "Expected a polygon"),
        ({}, {}, "Polygon"),
        ({"type": "FeatureCollection", "features": []}, {}, "empty"),
        ({"type": "FeatureCollection"}, {}, "NoneType"),
        ("no such file.geojson", {}, "got no file"),
        (7, {}, "got int"),
        ({1, 2}, {}, "got set"),
        (POINT, {"buffer_m": 10}, "buffer_m"),
        (POINT, {"temporal": "2022"}, "Expected a TemporalSpec, got '2022'"),
        (POINT, {"temporal": [YEAR]}, "Expected a TemporalSpec"),
        ({"type": "MultiPolygon", "coordinates": []}, {}, "MultiPolygon"),
        (b"x", {}, "Expected"),
        (BBox, {}, "Expected"),
    ],
    ids=lambda one: repr(one)[:30],
)
def test_what_is_no_place_or_several_is_refused_with_a_fix(given, options, said):
    with pytest.raises(SpecError) as caught:
        embed(given, **options)
    assert said in str(caught.value) and caught.value.fix
