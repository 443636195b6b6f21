"""Tables of places: what is read from where, and what a bad row is told."""

from datetime import date

import geopandas
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from rs_embed import BBox, PointBuffer, Region, TemporalSpec
from rs_embed.errors import SpecError, StorageError
from rs_embed.places import Places, read_places

SUMMER = TemporalSpec.range("2022-06-01", "2022-09-01")
SQUARE = box(12.9, 47.7, 13.0, 47.8)


def plots(**columns) -> pd.DataFrame:
    return pd.DataFrame({"id": ["a", "b"], "lon": [12.5, 13.5], "lat": [47.0, 48.0]} | columns)


def refused(given, *said: str, **options) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_places(given, **options)
    assert all(text in str(caught.value) for text in said), str(caught.value)
    assert caught.value.fix
    return caught.value


def test_specs_come_back_as_they_were_given():
    specs = [
        PointBuffer(12.5, 47.0, 320),
        BBox(344400, 5293600, 345200, 5294400, crs="EPSG:32633"),
        Region(SQUARE),
        BBox(179, -17, -179, -16),
    ]
    places = read_places(specs, temporal=SUMMER)
    assert [place.spatial for place in places] == specs
    assert [place.id for place in places] == ["0", "1", "2", "3"]
    assert {place.window for place in places} == {SUMMER}


def test_pairs_and_arrays_are_longitudes_and_latitudes():
    pairs = read_places([(12.5, 47.0), (13.5, 48.0)], buffer_m=320)
    array = read_places(np.array([[12.5, 47.0], [13.5, 48.0]]), buffer_m=320)
    assert [place.spatial for place in pairs] == [PointBuffer(12.5, 47, 320), PointBuffer(13.5, 48, 320)]
    assert pairs.digest() == array.digest()
    assert pairs[0].window is None


def test_one_window_per_row_may_be_given_beside_a_list():
    places = read_places([(12.5, 47.0), (13.5, 48.0)], buffer_m=320, temporal=[SUMMER, None])
    assert [place.window for place in places] == [SUMMER, None]
    refused([(12.5, 47.0)], "one per place (1), got 2", buffer_m=320, temporal=[SUMMER, SUMMER])


@pytest.mark.parametrize(("lon", "lat"), [("lon", "lat"), ("Longitude", "LATITUDE"), ("x", "y"), ("lng", "lat")])
def test_usual_names_are_found_whatever_their_case(lon, lat):
    places = read_places(pd.DataFrame({lon: [12.5], lat: [47.0]}), buffer_m=320)
    assert places[0].spatial == PointBuffer(12.5, 47, 320)


def test_x_and_y_are_left_alone_where_longitudes_and_latitudes_stand_beside_them():
    assert read_places(plots(x=[1e6, 2e6], y=[0, 0]), buffer_m=320)[0].spatial.lon == 12.5


def test_columns_can_be_named_and_switched_off():
    frame = plots(year=[2020, 2021], plot=["p", "q"], size=[100, 200], easting=[1.0, 2.0])
    places = read_places(frame, temporal=SUMMER, year=False, id="plot", buffer_m="size", lon="easting")
    assert (places[1].id, places[1].spatial, places[1].window) == ("q", PointBuffer(2.0, 48, 200), SUMMER)


def test_days_come_from_start_and_end_or_a_date_or_a_year():
    def window(**columns):
        return read_places(plots(**columns), buffer_m=320)[0].window

    assert window(start=["2022-06-01"] * 2, end=["2022-09-01"] * 2) == SUMMER
    assert window(start=[date(2022, 6, 1)] * 2, end=pd.to_datetime(["2022-09-01"] * 2)) == SUMMER
    assert window(date=["2022-06-01T23:30:00Z"] * 2) == TemporalSpec.range("2022-06-01", "2022-06-02")
    assert window(year=["2022", 2022.0]) == TemporalSpec.year(2022)


def test_days_said_twice_or_half_are_refused():
    refused(plots(year=[2020, 2021]), "the argument temporal, 'year'", buffer_m=320, temporal=SUMMER)
    refused(plots(year=[2020, 2021], date=["2020-01-01"] * 2), "'date', 'year'", buffer_m=320)
    refused(plots(start=["2020-01-01"] * 2), "got only 'start'", "end=", buffer_m=320)


def test_missing_and_ambiguous_columns_are_refused_with_what_was_found():
    refused(plots(longitude=[1, 2]), "'lon', 'longitude'", "lon='lon'", buffer_m=320)
    refused(plots().rename(columns={"lon": "east"}), "got none for lon", "id, east, lat", "lon='east'", buffer_m=320)
    refused(plots(), "'plot_id'", "id, lon, lat", buffer_m=320, id="plot_id")
    refused(plots(), "Expected a buffer")
    refused(plots(buffer_m=[10, 20]), "buffer_m once", buffer_m=320)
    refused(plots(geometry=["POINT (1 2)"] * 2), "got both", "geometry=False", buffer_m=320)


def test_every_bad_row_is_named_with_its_id():
    frame = pd.DataFrame(
        {
            "id": list("abcdefg"),
            "lon": [12.5, 12.5, 12.5, np.nan, "west", 12.5, 12.5],
            "lat": [47.0, 95.0, 47.0, 47.0, 47.0, 47.0, 47.0],
            "buffer_m": [320, 320, -1, 320, 320, np.nan, 320],
            "start": ["2022-06-01", "2022-06-01", "2022-06-01", "2022-06-01", "2022-06-01", "2022-06-01", "2022-09-01"],
            "end": ["2022-09-01"] * 7,
        }
    )
    said = str(refused(frame, "got 6 invalid"))
    for row, text in {
        "row 1 (id 'b')": "got 12.5 and 95",
        "row 2 (id 'c')": "got -1",
        "row 3 (id 'd')": "got nan",
        "row 4 (id 'e')": "got 'west'",
        "row 5 (id 'f')": "Expected a buffer_m around the point",
        "row 6 (id 'g')": "Expected start before end, got 2022-09-01 and 2022-09-01",
    }.items():
        line = next(line for line in said.splitlines() if row in line)
        assert text in line
    assert "row 0" not in said.replace("(the first row is row 0)", "")


def test_bad_dates_are_named_with_what_they_are():
    said = str(refused(plots(date=["01/06/2022", None]), buffer_m=320))
    assert "row 0 (id 'a'): Expected a date" in said
    assert "'01/06/2022'" in said
    assert "row 1 (id 'b')" in said
    refused(plots(start=["2022-06-01T10:00"] * 2, end=["2022-09-01"] * 2), "whole day", buffer_m=320)
    refused(plots(year=[22, 2022.5]), "got 22", "got 2022.5", buffer_m=320)


def test_a_long_list_of_bad_rows_is_cut_short():
    said = str(refused([(200.0, 0.0)] * 1000, "got 1000", buffer_m=320))
    assert "... and 990 more" in said
    assert len(said.splitlines()) < 20


def test_swapped_and_projected_coordinates_get_a_hint():
    refused([(47.0, 112.5)], "look swapped", buffer_m=320)
    refused([(345000.0, 5293600.0)], "look like metres", buffer_m=320)
    place = read_places([(344800.0, 5294000.0)], buffer_m=320, crs="EPSG:32633")[0].spatial
    assert (place.lon, place.lat) == pytest.approx((12.93, 47.78), abs=0.01)
    refused([(1.0, 2.0)], "pyproj knows", buffer_m=320, crs="EPSG:nonsense")


def test_repeated_and_missing_ids_are_refused_by_name():
    refused(plots(id=["a", "a"]), "'a' in rows 0, 1", "id=False", buffer_m=320)
    refused(plots(id=["a", None]), "got 1 without one", "rows: 1", buffer_m=320)
    assert [place.id for place in read_places(plots(id=["a", "a"]), buffer_m=320, id=False)] == ["0", "1"]


def test_ids_are_text_and_keep_zeros_dots_and_letters_of_the_world(tmp_path):
    names = ["007", "NA", "../x", "Gmünd/á", "1e5"]
    path = tmp_path / "plots.csv"
    pd.DataFrame({"id": names, "lon": 1.0, "lat": 2.0}).to_csv(path, index=False)
    places = read_places(path, buffer_m=320)
    assert [place.id for place in places] == names
    assert [place.id for place in places.take([4, 0])] == ["1e5", "007"]
    assert [place.index for place in places.take([4, 0])] == [4, 0]


def test_polygons_of_a_geodataframe_are_taken_as_they_are_in_their_own_crs():
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[SQUARE], crs="EPSG:4326")
    assert read_places(frame)[0].spatial == Region(SQUARE)
    utm = frame.to_crs(32633)
    spatial = read_places(utm)[0].spatial
    assert spatial.crs == "EPSG:32633"
    np.testing.assert_array_equal(spatial.polygon[0], utm.geometry[0].exterior.coords)
    with_hole = Polygon(SQUARE.exterior.coords, [box(12.94, 47.74, 12.96, 47.76).exterior.coords])
    assert len(read_places(frame.set_geometry([with_hole], crs=4326))[0].spatial.polygon) == 2


def test_points_of_a_geodataframe_are_reprojected_and_lon_columns_beside_them_ignored():
    frame = geopandas.GeoDataFrame({"lon": [1.0], "lat": [2.0]}, geometry=[Point(12.5, 47)], crs=4326).to_crs(32633)
    spatial = read_places(frame, buffer_m=320)[0].spatial
    assert (spatial.lon, spatial.lat) == pytest.approx((12.5, 47), abs=1e-9)
    assert read_places(frame, buffer_m=320, lon="lon", lat="lat")[0].spatial == PointBuffer(1, 2, 320)


def test_points_and_polygons_may_be_mixed():
    frame = geopandas.GeoDataFrame({"buffer_m": [320, None]}, geometry=[Point(12.5, 47), SQUARE], crs=4326)
    assert [place.spatial for place in read_places(frame)] == [PointBuffer(12.5, 47, 320), Region(SQUARE)]


def test_a_multipolygon_of_one_part_is_that_part_and_other_geometries_are_refused_by_row(tmp_path):
    frame = geopandas.GeoDataFrame(geometry=[MultiPolygon([SQUARE])], crs=4326)
    assert read_places(frame)[0].spatial == Region(SQUARE)
    two = MultiPolygon([SQUARE, box(14, 47, 14.1, 47.1)])
    frame = geopandas.GeoDataFrame({"id": ["m", "l"]}, geometry=[two, SQUARE], crs=4326)
    read_places(frame).save(tmp_path / "places.npz")
    specs = [Region(two), Region(SQUARE)]
    for places in (read_places(frame), Places.load(tmp_path / "places.npz"), read_places(specs)):
        assert [place.spatial for place in places] == specs
    frame = geopandas.GeoDataFrame(
        {"id": ["l", "e", "n"]}, geometry=[LineString([(0, 0), (1, 1)]), Polygon(), None], crs=4326
    )
    said = str(refused(frame, "got 3 invalid"))
    assert "row 0 (id 'l'): Expected a point or a polygon, got a LineString" in said
    assert "row 1 (id 'e'): Expected a geometry, got an empty one" in said
    assert "row 2 (id 'n'): Expected a geometry, got none" in said


def test_a_polygon_off_the_earth_or_without_an_area_is_refused():
    frame = geopandas.GeoDataFrame(geometry=[box(170, 10, 190, 20), Polygon([(0, 0), (1, 1), (2, 2)])], crs=4326)
    refused(frame, "row 0: Expected a polygon on the Earth", "row 1: Expected a polygon with an area")


def test_geometries_without_or_with_another_crs_are_refused():
    refused(geopandas.GeoDataFrame(geometry=[SQUARE]), "without one", 'crs="EPSG:4326"')
    refused(geopandas.GeoDataFrame(geometry=[SQUARE], crs=4326), "Expected one CRS", crs="EPSG:32633")
    assert read_places(geopandas.GeoDataFrame(geometry=[SQUARE]), crs="EPSG:4326")[0].spatial == Region(SQUARE)


@pytest.mark.parametrize("name", ["p.geojson", "p.gpkg", "p.shp", "p.parquet", "p.fgb"])
def test_files_of_polygons_give_what_their_geodataframe_gives(name, tmp_path):
    frame = geopandas.GeoDataFrame({"id": ["a", "b"]}, geometry=[SQUARE, box(14, 47, 14.5, 47.5)], crs=4326)
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_file(path)
    assert sorted(place.id for place in read_places(path)) == ["a", "b"]
    assert {place.spatial.crs for place in read_places(path)} == {"EPSG:4326"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_may_have_any_usual_separator_and_a_byte_order_mark(separator, tmp_path):
    path = tmp_path / "plots.csv"
    plots(note=["x, y", 'z "q"']).to_csv(path, index=False, sep=separator, encoding="utf-8-sig")
    assert [place.id for place in read_places(path, buffer_m=320)] == ["a", "b"]


def test_a_csv_may_hold_geometries_as_text(tmp_path):
    path = tmp_path / "plots.csv"
    pd.DataFrame({"id": ["a", "b"], "wkt": [SQUARE.wkt, "POINT (12.5 47)"]}).to_csv(path, index=False)
    assert [place.spatial for place in read_places(path, buffer_m=320)] == [Region(SQUARE), PointBuffer(12.5, 47, 320)]
    pd.DataFrame({"wkt": ["POLYGON ((1 2"]}).to_csv(path, index=False)
    refused(path, "row 0: Expected a geometry, got 'POLYGON ((1 2'")


def test_a_plain_parquet_file_is_read_by_its_columns(tmp_path):
    plots(other=[1, 2]).to_parquet(tmp_path / "plots.parquet")
    assert read_places(tmp_path / "plots.parquet", buffer_m=320)[1].spatial == PointBuffer(13.5, 48, 320)


def test_files_that_are_missing_or_no_tables_are_refused(tmp_path):
    refused(tmp_path / "none.csv", "got no file")
    for name, content in {
        "a.xlsx": b"x",
        "b.csv": b"",
        "c.csv": b"lon,lat\n\xff\xfe,1",
        "d.parquet": b"x",
        "e.gpkg": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name)
    (tmp_path / "f.csv").write_text("lon,lat\n")
    refused(tmp_path / "f.csv", "empty table")


def test_a_package_of_several_layers_is_refused_with_their_names(tmp_path):
    frame = geopandas.GeoDataFrame(geometry=[SQUARE], crs=4326)
    for layer in ("fields", "forests"):
        frame.to_file(tmp_path / "p.gpkg", layer=layer)
    refused(tmp_path / "p.gpkg", "fields, forests", "layer=")


@pytest.mark.parametrize("given", [PointBuffer(1, 2, 3), 7, [], [PointBuffer(1, 2, 3), (1, 2)], ["x"], [(1, 2, 3)]])
def test_what_is_no_list_of_places_is_refused(given):
    refused(given, "Expected", buffer_m=None if isinstance(given, PointBuffer) else 320)


def test_a_row_that_is_no_spec_among_specs_is_named():
    with pytest.raises(SpecError, match="Expected a spec in row 1, as in others, got None"):
        read_places([PointBuffer(12, 47, 100), None])


@pytest.mark.parametrize("days", ["2022", 2022])
def test_days_that_are_no_window_are_not_taken_for_a_list_of_them(days):
    with pytest.raises(SpecError, match="Expected a TemporalSpec or one per place, got '?2022"):
        read_places([(12, 47)] * 4, temporal=days, buffer_m=100)


def test_places_that_were_read_already_pass_through_without_options():
    places = read_places([(1.0, 2.0)], buffer_m=320)
    assert read_places(places) is places
    refused(places, "options", buffer_m=10)


def test_the_digest_tells_equal_tables_from_others():
    first = read_places(plots(), buffer_m=320)
    assert read_places(plots(), buffer_m=320).digest() == first.digest()
    others = [
        read_places(plots(), buffer_m=321),
        read_places(plots(), buffer_m=320, temporal=SUMMER),
        read_places(plots(id=["a", "c"]), buffer_m=320),
        read_places(plots(id=["ab", ""])[:1], buffer_m=320),
        read_places(plots(), buffer_m=320, id=False),
        first.take([1, 0]),
    ]
    assert len({places.digest() for places in [first, *others]}) == 7


def test_places_saved_and_loaded_are_the_same(tmp_path):
    specs = [PointBuffer(12.5, 47.0, 320), Region(SQUARE), BBox(179, -17, -179, -16)]
    places = read_places(specs, temporal=[SUMMER, None, SUMMER])
    places.save(tmp_path / "places.npz")
    again = Places.load(tmp_path / "places.npz")
    assert list(again) == list(places)
    assert again.digest() == places.digest()
    (tmp_path / "places.npz").write_bytes(b"no")
    with pytest.raises(StorageError):
        Places.load(tmp_path / "places.npz")


def test_the_middle_of_a_place_is_known_across_the_antimeridian():
    lon, lat = read_places([BBox(179, -17, -179, -16), PointBuffer(1, 2, 3), Region(SQUARE)]).centres()
    assert abs(abs(lon[0]) - 180) < 1e-6
    np.testing.assert_allclose(lon[1:], [1, 12.95])
    np.testing.assert_allclose(lat, [-16.5, 2, 47.75])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_long_table_is_read_to_its_last_row(kind, tmp_path):
    count = 50_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": [f"plot-{n:07d}" for n in range(count)]})
    frame = frame.assign(lon=rng.uniform(-180, 180, count), lat=rng.uniform(-80, 80, count), year=2022)
    path = tmp_path / f"plots.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    places = read_places(path, buffer_m=320)
    assert len(places) == count
    last = places[count - 1]
    assert last.id == "plot-0049999"
    assert (last.spatial.lon, last.spatial.lat) == pytest.approx((frame.lon.iloc[-1], frame.lat.iloc[-1]))
