"""Training from a model, from a region and from a run; predictions of places."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from made_heads import CELL_M, LEFT, MADE, TOP, labels, points, truth
from made_heads import region as made_region

from rs_embed import (
    BBox,
    OutputSpec,
    PointBuffer,
    embed_region,
    export_embeddings,
    get_embedding,
    get_embeddings,
    open_run,
)
from rs_embed.errors import ChoiceWarning, SpecError
from rs_embed.learning.fit import fit
from rs_embed.learning.head import load_head
from rs_embed.learning.labels import read_labels
from rs_embed.learning.origin import VectorOrigin
from rs_embed.learning.sampling import TOKENS_PER_PLACE, in_region

pytestmark = pytest.mark.filterwarnings("ignore:Fewer than half:rs_embed.errors.PixelWarning")


def squares(side_cells, count, seed=0):
    """Square fields that lie on whole tokens."""
    draw = np.random.default_rng(seed)
    rows = draw.integers(1, (MADE.rows - side_cells) // 8, count) * 8
    cols = draw.integers(0, (MADE.columns - side_cells) // 8, count) * 8
    shapes = [
        shapely.box(
            LEFT + CELL_M * col + 5,
            TOP - CELL_M * (row + side_cells) + 5,
            LEFT + CELL_M * (col + side_cells) - 5,
            TOP - CELL_M * row - 5,
        )
        for row, col in zip(rows, cols, strict=True)
    ]
    middle = side_cells // 2
    return geopandas.GeoDataFrame({"cover": truth(rows + middle, cols + middle)}, geometry=shapes, crs=32633)


def test_a_point_has_the_token_under_it_and_a_polygon_those_inside(region):
    frame = pd.concat([points([7], [9], ["water"]), squares(2, 1).to_crs(4326), squares(8, 1).to_crs(4326)])
    read = read_labels(frame.assign(cover=["a", "b", "a"]), "cover", buffer_m=1)
    found = in_region(read.places, region, None)
    assert [len(one) for one in found.values] == [1, 4, TOKENS_PER_PLACE]
    np.testing.assert_array_equal(found.values[0][0], [8, 10, 1, 1])
    small = shapely.Point(LEFT + 300, TOP - 500).buffer(20)  # smaller than a token
    tiny = geopandas.GeoDataFrame({"cover": ["a", "b"]}, geometry=[small, squares(2, 1).geometry[0]], crs=32633)
    found = in_region(read_labels(tiny, "cover").places, region, None)
    np.testing.assert_array_equal(found.values[0], [[7, 4, 1, 1]])


def test_polygons_train_tokens_and_are_scored_as_places(region):
    with pytest.warns(ChoiceWarning, match="only 16 labels"):
        head = fit(squares(3, 40).drop_duplicates("geometry"), "cover", region=region)
    assert head.facts.vectors == 9 * head.facts.places
    assert np.sum(head.validation.confusion) == head.facts.places
    table = head.predict(squares(3, 5, seed=3), region=region)
    assert table.geometry.geom_type.tolist() == ["Polygon"] * 5 and (table.status == "ok").all()


@pytest.mark.slow
def test_predictions_keep_rows_columns_and_errors(head, region):
    frame = pd.concat([labels(20, seed=9), points([3, 500], [5, 5], ["water", "water"])], ignore_index=True)
    frame["id"] = [f"plot {number}" for number in range(22)]
    table = head.predict(frame, region=region)
    assert list(table) == [
        *("id", "cover", "predicted", "probability"),
        *("p_forest & co", "p_meadow", "p_water", "status", "error", "geometry"),
    ]
    assert table.id.tolist() == frame.id.tolist() and table.crs.to_epsg() == 4326
    assert (table.predicted[:20] == frame.cover[:20]).mean() > 0.85
    assert table.status.tolist()[20:] == ["failed", "failed"] and table.predicted[20:].isna().all()
    assert "NoValidPixels" in table.error[20] and "OutsideCoverage" in table.error[21]
    proba = table[[f"p_{name}" for name in head.classes]]
    np.testing.assert_allclose(proba[:20].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(table.probability[:20], proba[:20].max(axis=1))


@pytest.mark.slow
def test_rows_without_a_vector_are_left_out_and_counted(tmp_path):
    frame = pd.concat([labels(60), points([3], [5], ["water"])], ignore_index=True)
    with pytest.warns(ChoiceWarning, match=r"1 of 61 labelled places have no vector.*row 60: NoValidPixels"):
        head = fit(frame, "cover", region=made_region(tmp_path))
    assert head.facts.places == 60


@pytest.mark.slow
def test_few_labels_are_said_to_be_few_and_a_single_block_is_not_scored(tmp_path):
    region = made_region(tmp_path)
    with pytest.warns(ChoiceWarning, match="only 20 labels"):
        fit(labels(20), "cover", region=region)
    near = points([8, 8, 8, 8], [8, 8, 8, 8], ["water", "meadow", "water", "meadow"])
    with pytest.warns(ChoiceWarning) as caught:
        head = fit(near, "cover", region=region)
    assert any("not measured" in str(one.message) for one in caught)
    assert head.validation is None and "not measured" in repr(head)


def test_arguments_that_do_not_go_together_are_refused(region, tmp_path):
    with pytest.raises(SpecError, match="Expected a source of vectors"):
        fit(labels(), "cover")
    with pytest.raises(SpecError, match="Expected the column of the labels"):
        fit(labels(), region=region)
    with pytest.raises(SpecError, match="Expected model, image_size only beside a model, got it beside a region"):
        fit(labels(), "cover", region=region, model="thor", image_size=96)
    with pytest.raises(SpecError, match="columns"):
        fit(labels(), "cover", region=region, groups="farm")


# --- real pixels: the bundled scene ---


def plots(count=12):
    """Points on the sample scene; the label follows from where they lie."""
    lon, lat = np.meshgrid(np.linspace(12.926, 12.948, count // 3), [47.764, 47.768, 47.772])
    side = np.where(lon.ravel() < 12.937, "west", "east")
    return pd.DataFrame({"lon": lon.ravel(), "lat": lat.ravel(), "side": side})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:There are only:rs_embed.errors.ChoiceWarning")
def test_a_head_from_a_model_fits_grids_and_predicts_points_of_the_same_model(tmp_path):
    frame = plots(6)
    head = fit(frame, "side", model="mosaiks_rcf", backend="sample", buffer_m=100, head="logistic")
    place = PointBuffer(12.937, 47.768, 200)
    grid = get_embedding("mosaiks_rcf", place, output=OutputSpec.grid(), backend="sample")
    found = head.map(grid, tmp_path / "sides.tif")
    assert found.geobox == grid.geobox and set(np.unique(found.read())) <= {1, 2}
    grid.save(tmp_path / "grid.tif")
    np.testing.assert_array_equal(head.map(tmp_path / "grid.tif").read(), found.read())
    again = load_head(head.save(tmp_path / "head.safetensors"))
    table = again.predict(frame.head(2), backend="sample", buffer_m=100)
    spot = PointBuffer(frame.lon[0], frame.lat[0], 100)
    token = get_embedding("mosaiks_rcf", spot, output=OutputSpec.grid(), backend="sample").at(spot.lon, spot.lat)
    np.testing.assert_allclose(table.p_east[0], head.fitted.proba(token[None])[0, 0], atol=1e-6)
    vector = get_embedding("mosaiks_rcf", place, backend="sample")
    with pytest.raises(SpecError, match=r"another output: pooled, not grid(.|\n)*OutputSpec.grid\(\) for a head"):
        head.predict(vector)
    with pytest.raises(SpecError, match=r"head.map\(grid"):
        head.predict(grid)
    box = BBox(344_640, 5_292_240, 345_600, 5_293_200, crs="EPSG:32633")
    region = embed_region("mosaiks_rcf", box, None, tmp_path / "map", backend="sample", progress=False).open()
    assert head.origin.differences(VectorOrigin.of_map(region)) == []
    assert region.header.extra["bands"] == list(head.origin.bands)
    assert (head.map(region).read() > 0).sum() >= 144  # and tokens that touch the edge
    other = get_embedding("mosaiks_rcf", place, output=OutputSpec.grid(), backend="sample", patch_size=16)
    with pytest.raises(SpecError, match="side of a token, metres: 160.0, not 80.0"):
        head.map(other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:There are only:rs_embed.errors.ChoiceWarning")
def test_a_head_from_a_run_predicts_embeddings_and_the_run(tmp_path):
    frame = plots()
    export_embeddings("mosaiks_rcf", frame, tmp_path / "run", buffer_m=150, backend="sample", progress=False)
    head = fit(open_run(tmp_path / "run"), "side")
    assert head.origin.output == "pooled" and "pooled vectors" in repr(head) and head.facts.vectors == 12
    table = head.predict(tmp_path / "run")
    assert table["side"].tolist() == frame["side"].tolist() and (table.status == "ok").all()
    many = get_embeddings("mosaiks_rcf", frame, buffer_m=150, backend="sample", progress=False)
    direct = head.predict(many)
    assert direct.predicted.tolist() == table.predicted.tolist()
    np.testing.assert_allclose(direct.p_east, table.p_east, atol=1e-6)
    places = head.predict(frame.head(2), backend="sample", buffer_m=150)
    np.testing.assert_allclose(places.p_east, table.p_east[:2], atol=1e-5)
    assert head.predict(many[0]).predicted.tolist() == direct.predicted.tolist()[:1]
    grid = get_embedding("mosaiks_rcf", PointBuffer(12.937, 47.768, 400), output=OutputSpec.grid(), backend="sample")
    with pytest.raises(SpecError, match="another output: grid, not pooled"):
        head.map(grid)
