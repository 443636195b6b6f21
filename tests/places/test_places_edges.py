"""Tables of places as they should not be: ragged, doubled, misnamed, hostile, broken."""

import csv
import json
import os
import zipfile
from datetime import UTC, date, datetime

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from shapely.geometry import Point, box

from rs_embed import PointBuffer, export_embeddings, open_run
from rs_embed.errors import ChoiceWarning, NoImagery, SpecError, StorageError
from rs_embed.places import Places, read_places
from rs_embed.places.kept import OURS
from rs_embed.testing import FieldProvider, pixel_centres

SQUARE = box(12.9, 47.7, 13.0, 47.8)


def refused(given, *said: str, **options) -> str:
    with pytest.raises(SpecError) as caught:
        read_places(given, **{"buffer_m": 320} | options)
    text = str(caught.value)
    assert all(one in text for one in said), text
    assert len(text) < 5000 and caught.value.fix
    return text


def written(tmp_path, text, name="plots.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_rows_longer_or_shorter_than_the_header_are_refused_with_their_lines(tmp_path):
    longer = written(tmp_path, "id,lon,lat\na,10,5,47,5\nb,12.5,47\n")
    refused(
        longer, "3 fields in every row", "got more or fewer in 1 row.", "line 2: 5 in 'a,10,5,47,5'", "10,5 for 10.5"
    )

    shorter = written(tmp_path, 'id;lon;lat\na;10;47\n"b\nb";11\nc;12\n', "shorter.csv")
    refused(shorter, "line 4: 2 in", "line 5: 2 in 'c;12'", "an empty field needs its separator")

    many = written(tmp_path, "id,lon,lat\n" + "a,1\n" * 1000, "many.csv")
    assert refused(many, "in 1,000 rows", "... and 990 more").count("line ") == 10


def test_an_index_column_without_a_name_and_blank_lines_are_no_reason_to_refuse(tmp_path):
    frame = pd.DataFrame({"lon": [10.0, 11.0], "lat": [47.0, 48.0]})
    frame.to_csv(tmp_path / "indexed.csv")
    places = read_places(tmp_path / "indexed.csv", buffer_m=320)

    assert len(places) == 2 and not places.kept
    assert len(read_places(written(tmp_path, "lon,lat\n\n10,47\n\n"), buffer_m=320)) == 1


def test_columns_of_one_name_are_refused_in_files_and_frames(tmp_path):
    refused(written(tmp_path, "id,lon,lon,lat\na,1,2,3\n"), "'lon' more than once", "id, lon, lon, lat")
    refused(pd.DataFrame([[1, 2, 3]], columns=["lon", "lat", "lat"]), "'lat' more than once")


@pytest.mark.parametrize(
    ("header", "fix"),
    [
        ("name,Easting,Northing", "read_places(table, lon='Easting', lat='Northing')"),
        ("name,GPS lon,GPS lat", "read_places(table, lon='GPS lon', lat='GPS lat')"),
        ("name,a,b", "read_places(table, lon='...', lat='...')"),
    ],
)
def test_unknown_column_names_are_listed_with_the_way_to_say_which_are_meant(tmp_path, header, fix):
    path = written(tmp_path, f"{header}\np,12.5,47.0\n")
    refused(path, "got neither", header.replace(",", ", "), fix)

    _, lon, lat = header.split(",")
    assert read_places(path, lon=lon, lat=lat, buffer_m=320)[0].spatial == PointBuffer(12.5, 47, 320)


def test_a_table_whose_separator_is_not_known_is_told_the_known_ones(tmp_path):
    refused(written(tmp_path, "id lon lat\na 1 2\n"), "columns: id lon lat", "separated by one of")


@pytest.mark.parametrize(
    ("lon", "lat"), [("POINT_X", "POINT_Y"), ("Long", "Lat"), ("decimalLongitude", "decimalLatitude")]
)
def test_names_of_other_programs_are_known_and_the_places_say_what_was_taken(lon, lat):
    places = read_places(pd.DataFrame({lon: [12.5], lat: [47.0], "plot_id": ["p"]}), buffer_m=320)

    assert places[0].spatial == PointBuffer(12.5, 47, 320)
    assert f"lon from {lon!r}" in repr(places) and "id from 'plot_id'" in repr(places)


def test_an_id_column_is_recognised_if_it_is_the_only_one_and_tells_rows_apart():
    def ids(**columns):
        places = read_places(pd.DataFrame({"lon": [1.0, 2.0], "lat": [3.0, 4.0]} | columns), buffer_m=320)
        return [place.id for place in places]

    assert ids(plot_id=["a", "b"]) == ids(Plot_ID=["a", "b"], name=["x", "y"]) == ["a", "b"]
    assert (
        ids(tile_id=["a", "a"]) == ids(plot_id=["a", "b"], site_id=["c", "d"]) == ids(plot_id=["a", None]) == ["0", "1"]
    )
    assert ids(ID=["u", "v"], plot_id=["a", "b"]) == ["u", "v"]
    assert "ids are row numbers" in repr(read_places([(1, 2)], buffer_m=320))


def test_other_columns_are_kept_with_their_types(tmp_path):
    frame = pd.DataFrame(
        {
            "plot_id": ["a", "b", "c"],
            "lon": [1.0, 2.0, 3.0],
            "lat": [3.0, 4.0, 5.0],
            "species": ["Picea", None, "Fagus"],
            "trees": pd.array([3, None, 5], "Int64"),
            "height": [1.5, np.nan, 2.5],
            "dead": [True, False, True],
            "seen": pd.to_datetime(["2022-06-01 10:00", None, "2022-06-03 00:00"]),
            "utc": pd.to_datetime(["2022-06-01 10:00+02:00", None, "2022-06-03 00:00+02:00"], utc=True),
            "day": [date(2022, 6, 1), None, date(2022, 6, 3)],
            "kind": pd.Categorical(["x", "y", None]),
            "large": [10**30, 1, 2],
            "mixed": ["a", 1, None],
            "lists": [[1], [2], [3]],
        }
    )
    places = read_places(frame, buffer_m=320)
    places.save(tmp_path / "places.npz")

    for one in (places, Places.load(tmp_path / "places.npz"), places.take([2, 1, 0]).take([2, 1, 0])):
        assert {name: column.kind for name, column in one.kept.items()} == {
            **dict.fromkeys(("plot_id", "species", "kind", "large", "mixed"), "string"),
            "trees": "int64",
            "height": "float64",
            "dead": "bool",
            "day": "date32",
            "seen": "timestamp[us]",
            "utc": "timestamp[us, UTC]",
        }
        assert one[0].kept == {
            "plot_id": "a",
            "species": "Picea",
            "trees": 3,
            "height": 1.5,
            "dead": True,
            "kind": "x",
            "seen": datetime(2022, 6, 1, 10),
            "utc": datetime(2022, 6, 1, 8, tzinfo=UTC),
            "day": date(2022, 6, 1),
            "large": str(10**30),
            "mixed": "a",
        }
        assert {name for name, value in one[1].kept.items() if value is None} == {
            *("species", "trees", "height", "seen", "utc", "day")
        }
        assert one.digest() == places.digest()
    assert read_places(frame.assign(species="Abies"), buffer_m=320).digest() != places.digest()


def test_kept_columns_of_a_csv_are_numbers_only_where_text_would_show_the_same(tmp_path):
    text = "lon,lat,code,count,share,serial,mixed,empty\n1,2,007,3,0.5,12345678901234567890,4,\n3,4,010,,1e3,1,x,\n"
    first, second = read_places(written(tmp_path, text), buffer_m=320)

    assert first.kept == {
        "code": "007",
        "count": 3,
        "share": 0.5,
        "serial": "12345678901234567890",
        "mixed": "4",
        "empty": None,
    }
    assert (second.kept["count"], second.kept["share"], second.kept["mixed"]) == (None, 1000.0, "x")


def test_columns_named_like_those_of_the_results_are_not_kept_and_that_is_said():
    frame = pd.DataFrame({"id": ["a"], "lon": [1.0], "lat": [2.0], "Status": ["x"], "error": ["y"], "species": ["z"]})
    with pytest.warns(ChoiceWarning, match="not kept: Status, error"):
        places = read_places(frame, buffer_m=320)

    assert list(places.kept) == ["species"]
    assert not read_places(frame, buffer_m=320, keep=False).kept
    assert {"status", "error", "embedding"} <= OURS


def test_polygons_of_several_parts_and_their_other_columns_come_from_a_file(tmp_path):
    frame = geopandas.GeoDataFrame({"plot": ["a"], "trees": [3]}, geometry=[SQUARE], crs=4326)
    frame.to_file(tmp_path / "aoi.geojson")

    assert read_places(tmp_path / "aoi.geojson")[0].kept == {"plot": "a", "trees": 3}


NO_IDS = {
    "a lone surrogate": ["a", "\ud800"],
    "10 MB": ["a", "b" * 10_000_000],
    "NUL": ["a", "b\0c"],
    "twice": ["c" * 500, "c" * 500],
}


@pytest.mark.parametrize("name", NO_IDS)
def test_ids_that_no_file_could_hold_are_refused_with_their_rows(name):
    refused(pd.DataFrame({"id": pd.Series(NO_IDS[name], dtype=object), "lon": [1, 2], "lat": [3, 4]}), "1")


def test_text_that_no_file_could_hold_is_refused_in_other_columns_too():
    note = pd.Series(["\udfff"], dtype=object)
    refused(pd.DataFrame({"lon": [1], "lat": [2], "note": note}), "'note'", "lone surrogate", "rows: 0")


BAD_NUMBERS = [
    np.nan,
    np.inf,
    -np.inf,
    1e300,
    10**400,
    -(10**400),
    "1e999",
    None,
    "",
    "10,5",
    "x" * 10_000_000,
    [1],
    {},
]


@pytest.mark.parametrize("bad", BAD_NUMBERS, ids=lambda bad: repr(bad)[:20])
def test_coordinates_that_are_none_are_refused_by_row(bad):
    refused(pd.DataFrame({"lon": [1.0, bad, 3.0], "lat": [2.0, 2.0, 2.0]}), "row 1")
    refused([(1.0, 2.0), (bad, 2.0), (3.0, 4.0)], "row 1")


def test_decimal_commas_are_told_how_to_be_read(tmp_path):
    refused(written(tmp_path, "id;lon;lat\na;10,5;47,5\n"), "row 0", "'10,5'", "decimal=','")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"type":"FeatureCollection","features":[]}',
        b'{"type":"FeatureCollection"}',
        b'{"type":"FeatureCollection","features":[{"type":"Feature","geometry":null,"properties":{}}]}',
        b'{"type":"Topology"}',
        b"\xff\xfe\x00",
        b"{" + b"\0" * 1000,
        b"<OGRVRTDataSource><OGRVRTLayer name='passwd'><SrcDataSource>/etc/passwd</SrcDataSource></OGRVRTLayer>"
        b"</OGRVRTDataSource>",
    ],
    ids=lambda content: repr(content[:30]),
)
@pytest.mark.parametrize("suffix", [".geojson", ".json", ".gpkg", ".fgb", ".shp", ".csv", ".parquet", ".zip"])
def test_hostile_and_broken_files_are_refused_by_name(tmp_path, suffix, content):
    (tmp_path / f"places{suffix}").write_bytes(content)
    refused(tmp_path / f"places{suffix}")


def test_a_virtual_file_in_a_zip_is_not_followed(tmp_path):
    layer = "<OGRVRTLayer name='p'><SrcDataSource>/etc/passwd</SrcDataSource></OGRVRTLayer>"
    virtual = f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("places.geojson", virtual)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr("places.vrt", virtual)

    refused(tmp_path / "a.zip", "other content in")
    refused(tmp_path / "b.zip", "Expected one table")


def test_a_table_in_a_zip_is_read(tmp_path):
    geopandas.GeoDataFrame({"id": ["a"]}, geometry=[SQUARE], crs=4326).to_file(tmp_path / "p.shp")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as packed:
        for path in sorted(tmp_path.glob("p.*")):
            if path.suffix != ".zip":
                packed.write(path, f"folder/{path.name}")

    assert [place.id for place in read_places(tmp_path / "p.zip")] == ["a"]


@pytest.mark.parametrize(
    "crs", ["EPSG:999999", "nonsense", "EPSG:4326\0", "\ud800", "", "x" * 100_000, "{}", "[]", 4326.5]
)
def test_a_crs_that_is_none_is_refused(crs):
    refused([(1.0, 2.0)], "CRS", crs=crs)


@pytest.mark.slow
def test_a_broken_crs_in_a_file_is_refused(tmp_path):
    features = [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}]
    for number, name in enumerate(("EPSG:999999", "nonsense", "urn:ogc:def:crs:EPSG::999999")):
        told = {
            "type": "FeatureCollection",
            "crs": {"type": "name", "properties": {"name": name}},
            "features": features,
        }
        (tmp_path / f"{number}.geojson").write_text(json.dumps(told))
        refused(tmp_path / f"{number}.geojson")
    frame = geopandas.GeoDataFrame(geometry=[Point(1, 2)], crs=4326)
    frame.to_parquet(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    for crs in ({"type": "GeographicCRS"}, "nonsense", 7, []):
        geo = json.loads(table.schema.metadata[b"geo"])
        geo["columns"]["geometry"]["crs"] = crs
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "p.parquet")
        refused(tmp_path / "p.parquet")
    for told in (
        "{}",
        "[",
        "[" * 100_000,
        '{"columns": 7}',
        '{"columns": {"geometry": 7}, "primary_column": "geometry"}',
    ):
        pq.write_table(table.replace_schema_metadata({"geo": told}), tmp_path / "p.parquet")
        refused(tmp_path / "p.parquet")


@pytest.mark.parametrize("name", ["fifo.csv", "folder.csv", "device.csv", "missing.csv", "x" * 5000, "a\0.csv"])
def test_what_is_no_file_is_refused_and_never_opened(tmp_path, name):
    if name == "fifo.csv":
        os.mkfifo(tmp_path / name)
    elif name == "folder.csv":
        (tmp_path / name).mkdir()
    elif name == "device.csv":
        (tmp_path / name).symlink_to("/dev/zero")
    refused(str(tmp_path / name), "Expected")


def test_the_limit_of_the_csv_module_is_as_it_was_and_long_polygons_are_read(tmp_path):
    ring = ", ".join(f"{12 + i * 1e-6:.6f} {47 + (i % 7) * 1e-6:.6f}" for i in range(12_000))
    path = written(tmp_path, f'wkt\n"POLYGON (({ring}, 12.006 48, 12 47))"\n')
    before = csv.field_size_limit()

    assert len(path.read_text()) > before
    assert len(read_places(path)) == 1
    assert csv.field_size_limit() == before


@pytest.mark.slow
def test_kept_columns_stand_in_the_files_of_an_export_with_their_types_and_after_a_retry(tmp_path):
    frame = pd.DataFrame({"plot_id": ["a", "b", "c"], "lon": [12.0, 12.3, 11.8], "lat": 47.0})
    frame = frame.assign(species=["Picea", None, "Fagus"], trees=[1, 2, 3], day=date(2022, 6, 1))
    fails = Fails()
    with pytest.warns(ChoiceWarning, match="not kept: status"):
        places = read_places(frame.assign(status="x"), buffer_m=160)
    for fails.on in (True, False):  # the second run does only what failed in the first
        export_embeddings(
            "mosaiks_rcf", places, tmp_path / "run", backend=fails, temporal=None, unit_rows=2, progress=False
        )
        stored = open_run(tmp_path / "run").to_frame()
        assert stored["id"].tolist() == stored["plot_id"].tolist() == ["a", "b", "c"]
        assert stored["species"].fillna("?").tolist() == ["Picea", "?", "Fagus"]
        assert stored["trees"].dtype == np.int64 and stored["trees"].tolist() == [1, 2, 3]
        assert set(stored["day"]) == {date(2022, 6, 1)}
        assert (stored["status"] == "failed").tolist() == [False, fails.on, False]
    columns = set(open_run(tmp_path / "run").tables()[0].columns)
    assert columns - set(places.kept) <= OURS
    frame.loc[0, "species"] = "Abies"
    with pytest.raises(StorageError, match="got a different one"):
        export_embeddings(
            "mosaiks_rcf", frame, tmp_path / "run", backend=fails, buffer_m=160, unit_rows=2, progress=False
        )


class Fails(FieldProvider):
    """Has nothing around 12.3 degrees east while it is on."""

    on = True

    def fetch(self, query):
        if self.on and abs(pixel_centres(query.geobox)[0].mean() - 12.3) < 0.05:
            raise NoImagery("Expected imagery, got none.", fix="look elsewhere")
        return super().fetch(query)
