"""Tables of one run have one schema, whatever the model's knobs and whichever rows fail."""

import geopandas
import pyarrow.parquet as pq

from rs_embed import OutputSpec, PointBuffer, TemporalSpec, export_embeddings
from rs_embed.errors import NoImagery
from rs_embed.testing import FieldProvider


class FailsInTheNorth(FieldProvider):
    def fetch(self, query):
        if query.geobox.boundingbox.top > 5_600_000:
            raise NoImagery("none", fix="none")
        return super().fetch(query)


def test_a_unit_without_any_embedding_is_as_wide_as_the_others(tmp_path):
    places = [PointBuffer(lon=12.94, lat=lat, buffer_m=80) for lat in (47.0, 47.1, 52.0, 52.1)]
    options = {"backend": FailsInTheNorth(), "unit_rows": 2, "progress": False, "pretrained": False}
    report = export_embeddings(
        "terramind_1_0_tiny", places, tmp_path / "run", temporal=TemporalSpec.year(2022),
        output=OutputSpec.pooled(), layers=[3, 11], **options,
    )  # fmt: skip
    assert (report.ok, report.failed) == (2, 2)
    units = sorted((tmp_path / "run").rglob("units/*.parquet"))
    widths = {pq.read_schema(unit).field("embedding").type.list_size for unit in units}
    assert len(units) == 2
    assert widths == {2 * 192}
    frame = geopandas.read_parquet(units[0].parent)
    assert sorted(frame["status"]) == ["failed", "failed", "ok", "ok"]
    assert report.open().matrix().shape == (4, 2 * 192)
    (collection,) = (tmp_path / "run").rglob("collection.json")
    assert '"emb:dimensions": 384' in collection.read_text()
