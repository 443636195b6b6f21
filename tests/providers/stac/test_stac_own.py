"""Catalogues of one's own: headers, files, lists of items, buckets; and what a catalogue must not make us do."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from gee_server import default_world
from stac_asking import QUICK, ask, equal, expected, scenes_of, stac

from rs_embed import OpenAccess, Opened, S3Access, Stac, StacCatalog
from rs_embed.core.specs import TemporalSpec
from rs_embed.errors import (
    AccessRefused,
    NoImagery,
    NotConfigured,
    ReadError,
    RequestTooLarge,
    SensorNotOffered,
    SpecError,
)
from rs_embed.providers.stac.catalogs import COPERNICUS_DATASPACE, EARTH_SEARCH
from rs_embed.providers.stac.http import Credentials, Http
from rs_embed.providers.stac.links import file_link, joined, s3_service
from rs_embed.providers.stac.opener import Opener

WORLD = default_world()
S2 = "COPERNICUS/S2_SR_HARMONIZED"
QUERY = ask("toulouse", ("B2", "B4"))
DAY = ask("toulouse", ("B4",), TemporalSpec.range("2022-06-12", "2022-06-13"))
KEY = {"Authorization": "Bearer s3cret, and more", "X-Key": "an0ther"}


def own(site, **more):
    """The catalogue of a site as a user describes it."""
    return replace(EARTH_SEARCH, url=f"{site.url}/api", name="", **more)


def fetched(catalog, query=QUERY, **settings):
    return Stac(catalog, **{"waits": QUICK, "timeout_s": 5, "max_scenes": 100, **settings}).fetch(query)


def items_of(site):
    """All Sentinel-2 items of a site, as its API has them."""
    asked = f"{site.url}/api/search?collections=sentinel-2-l2a&bbox=-180,-90,180,90&limit=10000"
    return json.load(urlopen(asked))["features"]


@pytest.fixture
def site(stac_server):
    return stac_server.site("earth-search", applied=True, page=10_000)


def test_headers_reach_the_api_and_the_files_of_its_host(stac_server):
    site = stac_server.site("earth-search", applied=True, headers=KEY)
    equal(fetched(own(site, headers=KEY)), expected(WORLD, QUERY))
    with pytest.raises(AccessRefused) as caught:
        fetched(own(site))
    assert "headers=" in caught.value.fix
    assert "s3cret" not in repr(own(site, headers=KEY)) + Stac(own(site, headers=KEY)).identity()


def test_headers_are_shown_to_no_other_host_neither_by_search_nor_by_gdal(stac_server):
    site, elsewhere = (stac_server.site("earth-search", applied=True) for _ in range(2))
    other = elsewhere.url.replace("127.0.0.1", "localhost")  # another host by name
    site.fail("redirect", routes=("search",), to=f"{other}/api/search")
    for route in ("head", "range"):
        site.fail("redirect", routes=(route,), path="B2.tif", to=f"{other}/files/sentinel-2-l2a/{_first()}/B2.tif")
    query = ask("toulouse", ("B2",), TemporalSpec.range("2022-06-12", "2022-06-13"))
    catalog = own(site, headers=KEY)
    Stac(catalog, waits=QUICK, timeout_s=5).fetch(query)
    assert elsewhere.count("range") > 0 and elsewhere.count("search") > 0
    for one in elsewhere.log:
        assert not {"Authorization", "X-Key"} & set(one["headers"])


@cache
def _first():
    """The scene of `DAY`."""
    return scenes_of(WORLD, DAY)[0].index


def test_further_hosts_get_the_headers_if_they_are_named(stac_server):
    site = stac_server.site("earth-search", applied=True, headers=KEY)
    by_name = own(site, headers=KEY, hosts=(urlsplit(site.url).netloc,))
    by_name = replace(by_name, url=by_name.url.replace("127.0.0.1", "localhost"))  # files stay at 127.0.0.1
    equal(fetched(by_name), expected(WORLD, QUERY))


@pytest.mark.parametrize("headers", [{"Authorization": "a\nX: b"}, {"X y": "b"}, {"X": 1}])
def test_headers_that_are_none_are_refused(headers):
    with pytest.raises(SpecError, match="Expected one line of text"):
        StacCatalog("https://stac.example", mapping={}, headers=headers)


@pytest.mark.slow
def test_a_catalogue_of_files_on_the_web_is_read_by_its_links(site):
    catalog = replace(EARTH_SEARCH, url=f"{site.url}/static/catalog.json", name="")
    provider = Stac(catalog, waits=QUICK, timeout_s=5, max_scenes=100)
    equal(provider.fetch(QUERY), expected(WORLD, QUERY))
    assert provider.check() == "Loopback of files" and site.count("search") == 0
    with pytest.raises(RequestTooLarge, match="at most 3 documents"):
        fetched(catalog, max_items=3)


@pytest.mark.parametrize("style", ["path", "file://"])
def test_a_catalogue_of_files_on_this_machine_may_have_its_files_here_too(site, tmp_path, style):
    item = next(one for one in items_of(site) if one["id"] == _first())
    tif = tmp_path / "data" / "red.tif"
    tif.parent.mkdir()
    tif.write_bytes(urlopen(item["assets"]["red"]["href"]).read())
    item["assets"] = {"red": {**item["assets"]["red"], "href": "../data/red.tif"}}
    item["links"] = []
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "one.json").write_text(json.dumps(item))
    root = {"type": "Catalog", "id": "mine", "links": [{"rel": "item", "href": "./items/one.json"}]}
    (tmp_path / "catalog.json").write_text(json.dumps(root))
    url = str(tmp_path / "catalog.json") if style == "path" else (tmp_path / "catalog.json").as_uri()
    equal(fetched(replace(EARTH_SEARCH, url=url, name=""), DAY), expected(WORLD, DAY))
    item["assets"]["red"]["href"] = "../data/gone.tif"
    (tmp_path / "items" / "one.json").write_text(json.dumps(item))
    with pytest.raises(ReadError, match=r"no such file \(404\)"):
        fetched(replace(EARTH_SEARCH, url=url, name=""), DAY)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["dicts", "pystac", "collection", "json", "parquet"])
def test_items_that_a_user_found_himself_are_taken_in_place_of_a_search(site, tmp_path, style):
    found = items_of(site)
    given = {
        "dicts": lambda: found,
        "pystac": lambda: [pystac.Item.from_dict(item) for item in found],
        "collection": lambda: {"type": "FeatureCollection", "features": found},
        "json": lambda: _saved(tmp_path / "found.json", found),
        "parquet": lambda: _table(tmp_path / "found.parquet", found),
    }[style]()
    site.reset()
    provider = Stac("earth-search", items=given, waits=QUICK, timeout_s=5, max_scenes=100)
    equal(provider.fetch(QUERY), expected(WORLD, QUERY))
    assert site.count("search", "landing") == 0
    assert "items=" in provider.identity() and "items of your own" in provider.described()


def _saved(path: Path, items):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def _table(path: Path, items):
    """As stac-geoparquet has it: properties are columns, geometry is WKB, times are times."""
    rows = [
        {
            **{key: item[key] for key in ("type", "stac_version", "id", "collection", "assets", "links")},
            **item["properties"],
            "geometry": shapely.to_wkb(shapely.geometry.shape(item["geometry"])),
        }
        for item in items
    ]
    table = pa.Table.from_pylist(rows)
    times = pa.compute.cast(pa.compute.replace_substring(table["datetime"], "Z", "+00:00"), pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(table.schema.get_field_index("datetime"), "datetime", times), path)
    return path


def test_the_identity_follows_the_items_and_not_their_signatures(site):
    found = items_of(site)[:3]
    signed = json.loads(json.dumps(found))
    for item in signed:
        for asset in item["assets"].values():
            asset["href"] += "?sig=1"
    one, same, other = (Stac("earth-search", items=given).identity() for given in (found, signed, found[:2]))
    assert one == same != other


@pytest.mark.parametrize(
    ("items", "kind", "said"),
    [
        ([], SpecError, "got none"),
        ([1], SpecError, "got int"),
        ("nowhere.json", ReadError, "got no file"),
        ("nowhere.parquet", ReadError, "got no file"),
        ({"type": "FeatureCollection"}, ReadError, "without a list"),
    ],
)
def test_items_that_are_none_are_named(items, kind, said):
    with pytest.raises(kind, match=said):
        Stac("earth-search", items=items)


def test_a_table_of_something_else_is_named(tmp_path):
    pq.write_table(pa.table({"id": [1], "x": [2]}), tmp_path / "points.parquet")
    with pytest.raises(ReadError, match="without the columns geometry, assets"):
        Stac("earth-search", items=tmp_path / "points.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ReadError, match="Expected stac-geoparquet"):
        Stac("earth-search", items=tmp_path / "text.parquet")


@pytest.mark.parametrize("text", ["[1]", "{", '{"type": "Topology"}', "[" * 100_000])
def test_a_file_that_is_no_catalogue_is_a_read_error(tmp_path, text):
    (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(ReadError, match="Expected a STAC catalogue"):
        fetched(replace(EARTH_SEARCH, url=str(tmp_path / "catalog.json"), name=""))


@pytest.mark.parametrize("where", ["api", "static/catalog.json", "items"])
@pytest.mark.slow
def test_a_misspelt_collection_is_answered_with_what_there_is(site, where):
    held = replace(EARTH_SEARCH.mapping[S2], id="sentinel-2-l2b")
    catalog = replace(EARTH_SEARCH, url=f"{site.url}/{where}", mapping=MappingProxyType({S2: held}), name="")
    items = {"items": items_of(site)} if where == "items" else {}
    with pytest.raises(SensorNotOffered, match="'sentinel-2-l2b'") as caught:
        fetched(catalog, **items)
    assert "sentinel-2-l2a" in caught.value.facts["has"] and "sentinel-2-l2a" in caught.value.fix


def test_a_misspelt_asset_is_answered_with_those_there_are(site):
    held = replace(EARTH_SEARCH.mapping[S2], assets={"B2": "bleu", "B4": "red"})
    with pytest.raises(NoImagery) as caught:
        fetched(replace(own(site), mapping={S2: held}))
    assert "blue" in caught.value.facts["files_there"] and "bleu" in caught.value.facts["files_wanted"]


def test_a_catalogue_on_the_web_cannot_name_files_of_this_machine(site, tmp_path):
    item = next(one for one in items_of(site) if one["id"] == _first())
    secret = tmp_path / "secret.tif"
    secret.write_bytes(urlopen(item["assets"]["red"]["href"]).read())
    for href in (secret.as_uri(), f"/vsizip/{secret}", "/vsicurl/http://127.0.0.1:1/x.tif"):
        item["assets"]["red"]["href"] = href
        with pytest.raises(SpecError, match="a link to a file on the web"):
            fetched(own(site), DAY, items=[item])


@pytest.mark.slow
def test_a_vrt_that_poses_as_a_geotiff_is_not_read(site, tmp_path):
    tif = tmp_path / "red.tif"
    tif.write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTRawRasterBand"><SourceFilename>/etc/passwd</SourceFilename></VRTRasterBand></VRTDataset>'
    )
    item = next(one for one in items_of(site) if one["id"] == _first())
    item["assets"] = {"red": {"href": str(tif)}}
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(ReadError, match="cannot be read"):
        fetched(replace(EARTH_SEARCH, url=str(tmp_path / "item.json"), name=""), DAY)


def test_the_users_gdal_variables_neither_break_nor_change_what_is_read(stac_server, monkeypatch):
    for name, value in {
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".jp2",
        "GTIFF_IGNORE_READ_ERRORS": "YES",
        "GDAL_DISABLE_READDIR_ON_OPEN": "NO",
        "GDAL_HTTP_MAX_RETRY": "9",
        "CPL_VSIL_CURL_USE_HEAD": "NO",
        "GTIFF_POINT_GEO_IGNORE": "YES",
        "GDAL_GEOREF_SOURCES": "NONE",
    }.items():
        monkeypatch.setenv(name, value)
    site = stac_server.site("planetary-computer", signed=True)
    equal(stac(site).fetch(QUERY), expected(WORLD, QUERY))
    assert site.count("head", "range") <= 4 * site.count("head")


def test_links_are_resolved_where_they_stand():
    assert joined("https://a.example/b/c.json", "../d.tif") == "https://a.example/d.tif"
    assert joined("/data/items/one.json", "../d.tif") == "/data/d.tif"
    assert joined("file:///data/items/one.json", "./d.tif") == "/data/items/d.tif"
    assert joined(None, "d.tif") == "d.tif" and joined("/data/x.json", "s3://b/k.tif") == "s3://b/k.tif"


CDSE = {"storage:schemes": {"cdse": {"type": "custom-s3", "platform": "https://eodata.example"}}}


def test_buckets_are_read_where_they_are():
    opener = Opener(OpenAccess(), Http(5), Credentials())
    assert opener.opened("s3://b/k.tif", None).name == "/vsicurl/https://b.s3.amazonaws.com/k.tif"
    assert opener.opened("gs://b/d/k.tif", None).name == "/vsicurl/https://storage.googleapis.com/b/d/k.tif"
    own = replace(opener, access=S3Access("https://eodata.example", "k", "s3cret"))
    opened = own.opened("s3://eodata/k.jp2", None)
    assert opened.name == "/vsis3/eodata/k.jp2" and opened.options["AWS_S3_ENDPOINT"] == "eodata.example"
    assert opened.options["AWS_VIRTUAL_HOSTING"] == "FALSE" and "s3cret" not in repr(own) + repr(opened)
    assert own.opened("https://x.example/k.tif", None).name == "/vsicurl/https://x.example/k.tif"
    service = s3_service({"storage:refs": ["cdse"]}, CDSE)
    assert service == "https://eodata.example"
    with pytest.raises(SpecError, match=r"bucket of https://eodata\.example") as caught:
        opener.opened("s3://eodata/k.jp2", service)
    assert "S3Access" in caught.value.fix


def test_a_bucket_of_the_copernicus_data_space_is_never_sought_at_amazon():
    service = s3_service({"href": "s3://eodata/k.jp2"}, {})
    with pytest.raises(SpecError, match=r"bucket of https://eodata\.dataspace\.copernicus\.eu"):
        OpenAccess().open("s3://eodata/k.jp2", service)
    assert COPERNICUS_DATASPACE.access.endpoint == service


def test_keys_are_those_of_the_environment_or_of_the_users_profile(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    access = COPERNICUS_DATASPACE.access
    with pytest.raises(NotConfigured, match="Expected keys to read s3://eodata") as caught:
        access.open("s3://eodata/k.jp2", None)
    assert "eodata-s3keysmanager" in caught.value.fix and "AWS_ACCESS_KEY_ID" in caught.value.fix
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b%\n"
        "[cdse]\naws_access_key_id=c\naws_secret_access_key=d\n"
    )

    def keys(access):
        options = access.open("s3://eodata/k.jp2", None).options
        return options["AWS_ACCESS_KEY_ID"], options["AWS_SECRET_ACCESS_KEY"]

    assert keys(access) == ("a", "b%") and keys(replace(access, profile="cdse")) == ("c", "d")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "e")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "f")
    assert keys(access) == ("e", "f") and keys(replace(access, profile="cdse")) == ("c", "d")


def test_of_a_bucket_elsewhere_an_open_copy_on_the_web_is_read_instead():
    asset = {"href": "s3://eodata/k.tif", "storage:refs": ["cdse"], "alternate": {"https": {"href": "https://x/k.tif"}}}
    assert file_link(asset, CDSE, None) == "https://x/k.tif"
    asset["alternate"]["https"]["auth:refs"] = ["oidc"]
    assert file_link(asset, CDSE, None) == "s3://eodata/k.tif"
    assert file_link({"href": "s3://b/k.tif", "alternate": asset["alternate"]}, {}, None) == "s3://b/k.tif"


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A service that checks signatures, in a process of its own: GDAL may hold the interpreter while it waits."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    code = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-3, text=True) as process:
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        known = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        anybody = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        iam = boto3.client("iam", **known, **anybody)
        iam.create_user(UserName="me")
        rule = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="me", PolicyName="all", PolicyDocument=json.dumps(rule))
        key = iam.create_access_key(UserName="me")["AccessKey"]
        client = boto3.client("s3", **known, **anybody)
        client.create_bucket(Bucket="mine")
        url = f"{endpoint}/moto-api/reset-auth"

        def put(name, content):
            client.put_object(Bucket="mine", Key=name, Body=content)

        def checked():
            urlopen(Request(url, b"0", {"Content-Type": "text/plain"})).read()

        yield S3Access(endpoint, key["AccessKeyId"], key["SecretAccessKey"]), put, checked
        process.kill()


@pytest.mark.slow
def test_files_in_a_bucket_of_another_service_are_read_with_the_users_keys(site, bucket):
    access, put, checked = bucket
    item = next(one for one in items_of(site) if one["id"] == _first())
    put("a/red.tif", urlopen(item["assets"]["red"]["href"]).read())
    checked()
    item["assets"]["red"]["href"] = "s3://mine/a/red.tif"
    equal(fetched(own(site, access=access), DAY, items=[item]), expected(WORLD, DAY))
    item["assets"]["red"]["href"] = "s3://mine/a/gone.tif"
    with pytest.raises(ReadError, match=r"no such file \(404\)"):
        fetched(own(site, access=access), DAY, items=[item])
    item["assets"]["red"]["href"] = "s3://mine/a/other.tif"
    wrong = replace(access, secret="wr0ng-s3cret")
    with pytest.raises(AccessRefused) as caught:
        fetched(own(site, access=wrong), DAY, items=[item])
    assert "wr0ng-s3cret" not in str(caught.value)
    with pytest.raises(NotConfigured, match="Expected keys to read s3://mine"):
        fetched(own(site, access=replace(access, secret=None)), DAY, items=[item])


@dataclass(frozen=True)
class Renamed:
    """An access of the user's own: it knows where files really are."""

    at: str
    renews = False

    def open(self, href, service):
        return Opened(f"/vsicurl/{href.replace('s3://nowhere', self.at)}", {"GDAL_HTTP_VERSION": "1.1"})

    def renew(self, name):
        raise AssertionError("it does not renew")


@pytest.mark.slow
def test_users_may_open_files_their_own_way(site):
    item = next(one for one in items_of(site) if one["id"] == _first())
    item["assets"]["red"]["href"] = item["assets"]["red"]["href"].replace(site.url, "s3://nowhere")
    equal(fetched(own(site, access=Renamed(site.url)), DAY, items=[item]), expected(WORLD, DAY))
