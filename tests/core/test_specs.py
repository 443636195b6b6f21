"""Specs are valid once built; invalid ones say what was expected, what came, and the fix."""

import math
import subprocess
import sys
from datetime import date, datetime

import numpy as np
import pytest

from rs_embed.core.specs import BBox, OutputSpec, PointBuffer, Region, SensorSpec, TemporalSpec
from rs_embed.errors import SpecError

S2 = "COPERNICUS/S2_SR_HARMONIZED"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PointBuffer(999, 0, 100), "lon between -180 and 180, got 999"),
        (lambda: PointBuffer(0, 95, 100), "lon and lat look swapped"),
        (lambda: PointBuffer(120, 95, 100), "lat between -90 and 90, got 95"),
        (lambda: PointBuffer(31.2, 121.5, 100), "lon and lat look swapped: use lon=121.5, lat=31.2"),
        (lambda: PointBuffer(math.nan, 0, 100), "got nan"),
        (lambda: PointBuffer(0, math.inf, 100), "got inf"),
        (lambda: PointBuffer("12", 0, 100), "Expected a number for lon, got '12'"),
        (lambda: PointBuffer(None, 0, 100), "Expected a number for lon, got None"),
        (lambda: PointBuffer(True, 0, 100), "Expected a number for lon, got True"),
        (lambda: PointBuffer(0, 0, 0), "buffer_m above 0"),
        (lambda: PointBuffer(0, 0, -5), "buffer_m above 0"),
        (lambda: PointBuffer(0, 0, 5_000_000), "buffer_m above 0 and up to"),
        (lambda: PointBuffer(0, 0, math.nan), "buffer_m"),
        (lambda: BBox(10, 46, 11, 45), "the order is minlon, minlat, maxlon, maxlat"),
        (lambda: BBox(11, 45, 10, 46), "Expected minlon below maxlon"),
        (lambda: BBox(10, 45, 10, 46), "a box with an area"),
        (lambda: BBox(10, 45, 10, 46), "give corners that differ"),
        (lambda: BBox(10, 45, 11, 46, crs=32633), 'crs="EPSG:32633"'),
        (lambda: BBox(344_000, 5_290_000, 346_000, 5_292_000), "for metres"),
        (lambda: Region([(0, 0), (1, 0), (1, 1)], crs=4326), 'crs="EPSG:4326"'),
        (lambda: BBox(10, 45, math.nan, 46), "got nan"),
        (lambda: BBox(45, 100, 46, 120), "swapped"),
        (lambda: Region([(0, 0), (1, 1)]), "at least 3 different corners"),
        (lambda: Region([(12.93, 47.76), (12.935, 47.765), (12.94, 47.77)]), "on one line"),
        (lambda: Region([(0, 0), (0, 1), (0, 2)]), "with an area"),
        (lambda: Region([(0, 0), (1, 1), (1, 0), (0, 1)]), "edges that cross"),
        (lambda: Region([]), "Expected a polygon"),
        (lambda: Region("POLYGON((0 0))"), "Expected a polygon"),
        (lambda: Region({"type": "Point", "coordinates": [0, 0]}), "got type 'Point'"),
        (lambda: Region([(0, 0), (1, 0), ("a", 1)]), "Expected a number"),
        (lambda: TemporalSpec.range("2022-09-01", "2022-06-01"), "start before end"),
        (lambda: TemporalSpec.range("2022-06-01", "2022-06-01"), "end is exclusive"),
        (lambda: TemporalSpec.range("June", "2022-06-01"), "ISO date for start, got 'June'"),
        (lambda: TemporalSpec.range("2022-13-01", "2023-06-01"), "ISO date"),
        (lambda: TemporalSpec.range(20220601, "2023-06-01"), "Expected a date"),
        (lambda: TemporalSpec.range(datetime(2022, 6, 1, 10), "2023-06-01"), "whole day"),
        (lambda: TemporalSpec(date(2022, 9, 1), date(2022, 6, 1)), 'TemporalSpec.range("2022-06-01", "2022-09-01")'),
        (lambda: TemporalSpec("June", "2022-06-01"), "ISO date for start, got 'June'"),
        (lambda: TemporalSpec.year(22), "choose year in that range"),
        (lambda: TemporalSpec.year("2022"), "Expected a number for year"),
        (lambda: TemporalSpec.year(2022.5), "whole year"),
        (lambda: OutputSpec.pooled("median"), "how to be one of mean, max"),
        (lambda: OutputSpec.grid("fine"), "use kind='patch'"),
        (lambda: PointBuffer(0, 0, None), "buffer_m as a plain number"),
        (lambda: OutputSpec("map"), "kind to be one of pooled, grid"),
        (lambda: SensorSpec("COPERNICUS/S2_SR_HARMONISED", ("B2",)), "did you mean 'COPERNICUS/S2_SR_HARMONIZED'"),
        (lambda: SensorSpec(S2, ("B02",)), "did you mean 'B2'"),
        (lambda: SensorSpec(S2, "B2"), "Expected a list of bands"),
        (lambda: SensorSpec(S2, ()), "Expected a list of bands"),
        (lambda: SensorSpec(S2, ("B2", "B2")), "each band once"),
        (lambda: SensorSpec(S2, ("B2",), scale_m=0), "scale_m"),
        (lambda: SensorSpec(S2, ("B2",), cloudy_pct=130), "cloudy_pct between 0 and 100"),
        (lambda: SensorSpec(S2, ("B2",), composite="average"), "composite to be one of"),
        (lambda: SensorSpec(S2, ("B2",), fill_value="zero"), "fill_value to be one of mean, nan"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_fix(make, says):
    with pytest.raises(SpecError) as caught:
        make()
    assert says in str(caught.value)
    assert caught.value.fix


def test_numpy_numbers_are_numbers():
    assert PointBuffer(np.float32(12.5), np.int64(47), np.float64(100)) == PointBuffer(12.5, 47, 100)


def test_a_window_of_text_is_a_window_of_days():
    assert TemporalSpec("2022-01-01", datetime(2023, 1, 1)) == TemporalSpec.year(2022)


def test_windows_are_half_open_hashable_and_equal_by_value():
    window = TemporalSpec.range("2022-01-01", date(2023, 1, 1))
    assert window == TemporalSpec.year(2022) == TemporalSpec.range(datetime(2022, 1, 1), "2023-01-01")
    assert len({window, TemporalSpec.year(2022)}) == 1
    assert repr(window) == 'TemporalSpec.range("2022-01-01", "2023-01-01")'


def test_specs_look_the_same_in_another_process():
    code = (
        "from rs_embed import *; print(repr((PointBuffer(1,2,3), BBox(1,2,3,4), Region([(0,0),(1,0),(1,1)]),"
        "TemporalSpec.year(2022), OutputSpec.grid(), SensorSpec('COPERNICUS/S1_GRD', ['VV']))))"
    )
    code = code.replace("*", "PointBuffer, BBox, Region, TemporalSpec, OutputSpec, SensorSpec")
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    here = repr(
        (PointBuffer(1, 2, 3), BBox(1, 2, 3, 4), Region([(0, 0), (1, 0), (1, 1)]), TemporalSpec.year(2022),
         OutputSpec.grid(), SensorSpec("COPERNICUS/S1_GRD", ["VV"]))
    )  # fmt: skip
    assert outputs == {here + "\n"}


def test_a_shapely_polygon_and_a_feature_are_regions():
    from shapely.geometry import Polygon

    corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}}
    assert Region(Polygon(corners)) == Region(feature) == Region(corners) == Region(corners[:-1])
    assert hash(Region(corners)) == hash(Region(corners))
