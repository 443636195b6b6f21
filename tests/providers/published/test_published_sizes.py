"""What a chip costs where shards and chunks are as large as the published ones, of data that do not compress."""

import numpy as np
import pytest
from published_stores import STEP, TOP, mosaic, mosaic_pixel, tessera, zone, zone_pixel

from rs_embed import PointBuffer, TemporalSpec, geobox_for
from rs_embed.core.geo import pixel_centres
from rs_embed.embedders.catalog import get_card
from rs_embed.providers.base import Query

pytestmark = pytest.mark.slow
PLACE = PointBuffer(lon=12.94, lat=47.77, buffer_m=160)


def fetched(provider, model_id):
    sensor = get_card(model_id).modalities[0].sensor
    return provider().fetch(Query("embedding", sensor, geobox_for(PLACE), TemporalSpec.year(2022)))


def costs(world) -> tuple[list[int], list[int]]:
    """Sizes of the indexes that were read, and of the ranges of chunks."""
    ranged = [one for one in world.data if one.span]
    return tuple(
        sorted(one.size for one in ranged if one.span.startswith("bytes=-") is index) for index in (True, False)
    )


def test_a_chip_of_alphaearth_is_one_index_and_a_chunk_or_two(provider, world):
    array = mosaic(world.folder / "aef-mosaic", chunk_px=256, shard_px=4096)
    row, col = (one // 256 * 256 for one in mosaic_pixel(PLACE.lon, PLACE.lat))
    stored = np.random.default_rng(0).integers(-127, 128, (64, 256, 256), dtype=np.int8)
    array[5:6, :, row : row + 256, col : col + 256] = stored[None]
    chip = fetched(provider, "alphaearth_v1")
    lon, lat = pixel_centres(geobox_for(PLACE))
    q = stored[:, ((TOP - lat) // STEP).astype(int) - row, ((lon + 180) // STEP).astype(int) - col]
    np.testing.assert_array_equal(chip.values[0], (np.sign(q) * (q / 127.5) ** 2).astype(np.float32))
    indexes, chunks = costs(world)
    assert indexes == [16 * 16 * 16 + 4]
    assert len(chunks) == 1 and 4_100_000 < chunks[0] < 4_200_000
    assert len(world.asked) == 5


def test_a_chip_of_tessera_is_two_indexes_and_few_ranges(provider, world):
    group = zone(tessera(world.folder / "v1.1-dclimate"), 33, chunk_px=32, shard_px=4096)
    row, col = (one // 32 * 32 - 32 for one in zone_pixel(33, PLACE.lon, PLACE.lat))
    rng = np.random.default_rng(0)
    rows, cols = slice(row, row + 96), slice(col, col + 96)
    group["embeddings"][5:6, :, rows, cols] = rng.integers(-127, 128, (1, 128, 96, 96), dtype=np.int8)
    group["scales"][5:6, rows, cols] = rng.uniform(0.03, 0.1, (1, 96, 96)).astype(np.float32)
    assert np.isfinite(fetched(provider, "tessera_v1_1").values).all()
    indexes, chunks = costs(world)
    assert indexes == [128 * 128 * 16 + 4] * 2
    assert len(chunks) <= 4 and sum(chunks) < 1_300_000
    assert len(world.asked) == 5 + len(indexes) + len(chunks)
