"""Earth Engine from a cluster: one limit for all processes, kept at a server that counts."""

import pytest
from engines_help import vectors
from gee_server import PLACES, EarthEngineServer, default_world, faults

from rs_embed import EarthEngine, PointBuffer, TemporalSpec, export_embeddings
from rs_embed.providers.common.retry import Backoff, Waits

pytestmark = pytest.mark.slow

LON, LAT = PLACES["toulouse"]
SUMMER = TemporalSpec.range("2022-06-01", "2022-07-01")


def earth_engine(server: EarthEngineServer) -> EarthEngine:
    waits = Waits(Backoff(first_s=0.02, longest_s=0.1))
    return EarthEngine(host=server.url, project="test-project", credentials="none", concurrency=3, waits=waits)


def test_a_cluster_asks_earth_engine_for_no_more_at_once_than_one_process_may(nodes, tmp_path):
    places = [PointBuffer(LON + 0.002 * i, LAT, 160) for i in range(16)]
    options = {"temporal": SUMMER, "unit_rows": 8, "device": "cpu", "progress": False}
    with EarthEngineServer(default_world(), latency_s=0.1) as server:
        backend = earth_engine(server)
        assert export_embeddings("mosaiks_rcf", places, tmp_path / "here", backend=backend, **options).ok == 16
        server.script.queue.append(faults.quota(times=2))
        backend = earth_engine(server)
        report = export_embeddings("mosaiks_rcf", places, tmp_path / "there", backend=backend, engine="ray", **options)
        assert report.ok == 16
        assert server.high_water <= 3
    assert vectors(tmp_path / "here") == vectors(tmp_path / "there")
