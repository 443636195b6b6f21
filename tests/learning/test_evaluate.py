"""`evaluate`: one call fetches once, keeps its runs, says what it left out, and refuses what would fool people."""

import json

import numpy as np
import pandas as pd
import pytest
from made_labels import labelled, patches, plain
from tiny import card_of

from rs_embed import open_run
from rs_embed.core.geo import pixel_centres
from rs_embed.embedders.catalog import get_card
from rs_embed.errors import ChoiceWarning, NoImagery, SensorNotOffered, SpecError
from rs_embed.learning.baselines import channels_of, merged_inputs, statistics
from rs_embed.learning.evaluate import evaluate
from rs_embed.learning.evaluation import BANDS, PLACE
from rs_embed.learning.labels import read_labels
from rs_embed.learning.one_fetch import OneFetch
from rs_embed.learning.variants import split_models, variants_of
from rs_embed.providers.base import Query
from rs_embed.testing import FieldProvider, hills

pytestmark = pytest.mark.slow

TINY = card_of("thor_1_0_tiny")
CONTROL = {"thor": (TINY, {"pretrained": False, "input_prep": "tile"})}
QUICK = {"random_controls": True, "head": "knn", "progress": False}
COUNT = 48


def plots(count=COUNT, **options):
    """Places on the synthetic landscape, labelled by what its near-infrared band is there."""
    frame = plain(count, side_km=30, buffer_m=160, **options)
    bright = hills(frame.lon.to_numpy(), frame.lat.to_numpy(), "B8")
    return frame.assign(cover=np.where(bright > np.median(bright), "bright", "dark"))


class Gappy(FieldProvider):
    """Without imagery north of a line, and without the bands that a model may lack."""

    def __init__(self, north=90.0, lacks=()):
        super().__init__()
        self.north, self.lacks = north, set(lacks)

    def require(self, modality, sensor):
        if self.lacks & set(sensor.bands):
            raise SensorNotOffered(f"Expected bands without {sorted(self.lacks)}, got {sensor.bands}.")

    def fetch(self, query):
        if pixel_centres(query.geobox)[1].mean() > self.north:
            raise NoImagery("Expected imagery, got none.", fix="go south")
        return super().fetch(query)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One evaluation of a model beside the four baselines, and the provider that it asked."""
    provider, out = FieldProvider(), tmp_path_factory.mktemp("evaluation")
    found = evaluate(CONTROL, plots(), "cover", out=out, backend=provider, **QUICK)
    (out / "first.json").write_bytes((out / "evaluation.json").read_bytes())
    return found, provider, out


def test_the_four_baselines_are_always_there_and_what_pixels_decide_is_found(whole):
    found, _, _ = whole

    assert {one.name for one in found.rows if one.role == "baseline"} == {"mosaiks_rcf", BANDS, PLACE, "majority"}
    assert found["majority"].main.value <= 0.5 and found[BANDS].main.low > 0.6
    assert found[BANDS].above(found["majority"]).low > 0
    assert found["thor"].role == "control" and found["thor"].weights[0].startswith("random:")


def test_imagery_is_fetched_once_for_all_models_with_the_bands_of_all(whole):
    _, provider, _ = whole

    assert len(provider.queries) == COUNT
    assert {len(query.sensor.bands) for query in provider.queries} == {12}  # the model takes 10 of them


def test_vectors_are_kept_as_runs_and_a_further_model_computes_only_its_own(whole):
    found, _, out = whole
    runs = {path.rpartition("/")[0] for one in found.rows for path in one.run}
    models = {model for run in runs for model in open_run(run).models}
    assert models == {"thor_1_0_tiny_shrunken", "mosaiks_rcf", "bands_s2_10m"}

    provider = FieldProvider()
    again = evaluate(CONTROL, plots(), "cover", out=out, backend=provider, **QUICK)
    assert provider.queries == [] and again["thor"].main == found["thor"].main

    both = {**CONTROL, "coarse": "mosaiks:patch_size=16"}
    more = evaluate(both, plots(), "cover", out=out, backend=provider, **QUICK)
    assert len(provider.queries) == COUNT and more["thor"].main == found["thor"].main
    assert len(list((out / "vectors").iterdir())) == len(runs) + 1


def test_costs_stand_beside_the_scores_in_the_table_and_in_the_file(whole):
    found, _, out = whole
    told = json.loads((out / "first.json").read_text())

    thor = next(row for row in told["rows"] if row["name"] == "thor")
    assert thor["seconds_per_place"] > 0 and thor["imagery_mb_per_place"] == pytest.approx(32 * 32 * 10 * 2 / 1e6)
    assert thor["licence"] == ["Apache-2.0"] and thor["download"] == [found["thor"].costs[0].download]
    assert told["folds"]["blocks"] >= 10 and told["labels"]["classes"]["dark"]["places"] == COUNT // 2
    assert sum(map(sum, thor["confusion"])) == COUNT and told["conclusion"] == found.conclusion
    for text in ("thor (random weights)", "balanced accuracy", "Apache-2.0", BANDS, PLACE, "- Labels"):
        assert text in str(found)


def test_places_that_fail_are_counted_left_out_for_all_and_tried_again(tmp_path):
    frame = plots(24)
    line = float(np.sort(frame.lat)[-4:-2].mean())
    with pytest.warns(ChoiceWarning, match="Fewer than 30 labels"):
        found = evaluate("mosaiks_rcf", frame, "cover", out=tmp_path, backend=Gappy(line), progress=False)

    assert len(found.labels) == 21 and found["mosaiks_rcf"].failed == 3
    assert any("mosaiks_rcf has no vector for 3 of 24 places (NoImagery" in note for note in found.notes)
    assert any("Scores are of the 21 of 24 places" in note for note in found.notes)
    with pytest.warns(ChoiceWarning, match="Fewer than 30 labels"):
        mended = evaluate("mosaiks_rcf", frame, "cover", out=tmp_path, backend=Gappy(), progress=False)
    assert len(mended.labels) == 24 and len(list((tmp_path / "vectors").iterdir())) == 1


def test_a_model_that_fails_at_most_places_is_left_out_and_alone_it_is_an_error(tmp_path):
    with pytest.raises(SpecError, match="vectors of a model for most places") as caught:
        evaluate("mosaiks_rcf", plots(24), "cover", out=tmp_path, backend=Gappy(50.1), progress=False)
    assert "left out of the comparison" in caught.value.facts["notes"]


def test_a_baseline_whose_bands_are_missing_is_a_note(tmp_path):
    own = {"own": np.random.default_rng(0).normal(size=(COUNT, 4)), **CONTROL}
    found = evaluate(own, plots(), "cover", out=tmp_path, backend=Gappy(lacks=["B1"]), **QUICK)

    assert found[BANDS].dim == 2 * (10 + 4) and "mosaiks_rcf" not in [one.name for one in found.rows]
    assert any(note.startswith("The baseline mosaiks_rcf cannot run here: Expected bands") for note in found.notes)


def test_random_weights_are_refused_unless_asked_for_as_a_control():
    with pytest.raises(SpecError, match="trained weights, got random ones for thor_1_0_tiny_shrunken") as caught:
        evaluate(CONTROL, plots(), "cover", out=None, backend=FieldProvider())
    assert "random_controls=True" in caught.value.fix


def test_vectors_of_your_own_need_no_imagery_and_few_labels_warn(tmp_path):
    frame = plain(26, side_km=20)
    labels = labelled(frame, patches(frame, 5, classes=2))
    own = np.eye(2)[labels.targets] + np.random.default_rng(0).normal(size=(26, 2)) * 0.1
    options = {"backend": None, "head": ("knn", "logistic"), "progress": False}
    with pytest.warns(ChoiceWarning, match="Fewer than 30 labels"):
        found = evaluate({"mine": own}, labels, out=tmp_path / "a" / "b", **options)

    assert [one.title for one in found.rows if one.role == "model"] in (
        ["mine + kNN", "mine + logistic"],
        ["mine + logistic", "mine + kNN"],
    )
    assert found.best.main.value > 0.9 and found[PLACE].role == "baseline"
    assert any("No imagery is fetched" in note for note in found.notes)
    assert (found.folder / "report.html").is_file() and "Fewer than 30" in (found.folder / "report.html").read_text()


def test_the_sentences_say_what_can_be_told_apart():
    frame = plain(200)
    labels = labelled(frame, patches(frame, 6, classes=2))
    truth, rng = np.eye(2)[labels.targets], np.random.default_rng(0)
    good, same = (truth + rng.normal(size=truth.shape) * noise for noise in (0.3, 0.31))
    own = {"good": good, "same": same, "noise": rng.normal(size=truth.shape)}
    found = evaluate(own, labels, out=None, backend=None, head="logistic", progress=False)

    assert found.conclusion.startswith(f"{found.best.title} has the highest balanced accuracy of the models")
    assert "better than coordinates alone by" in found.conclusion
    assert (
        "is not distinguishable from it" in found.conclusion and "noise + logistic is worse than it" in found.conclusion
    )


def test_a_score_that_place_explains_is_said():
    """The vectors are the coordinates with some noise, and nothing else."""
    frame = plain(200)
    labels = labelled(frame, np.where(frame.lon > frame.lon.median(), "east", "west"))
    own = {"imagery?": frame[["lon", "lat"]].to_numpy() + np.random.default_rng(0).normal(size=(200, 2)) * 0.05}
    found = evaluate(own, labels, out=None, backend=None, blocks=10_000, progress=False)

    assert "not distinguishable from coordinates alone" in found.conclusion
    assert "where a place lies explains these labels as well" in found.conclusion


def test_imbalance_rare_classes_and_classes_of_one_block_are_said():
    frame = plain(120)
    cover = np.where(frame.lat > frame.lat.quantile(0.9), "rare", "common").astype(object)
    cover[3] = "lone"
    rng = np.random.default_rng(0)
    found = evaluate({"own": rng.normal(size=(120, 3))}, frame.assign(y=cover), "y", out=None, backend=None)

    notes = " ".join(found.notes)
    assert "accuracy flatters" in notes and "lone 1" in notes and "no fold can both train on and test: lone" in notes


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"models": {"own": np.zeros((3, 2))}}, "40 vectors of 'own'"),
        ({"models": "mosaiks_rcf"}, "vectors of your own without a backend"),
        ({"label": None}, "the column of the labels"),
        ({"models": {"own": np.zeros(40)}}, r"vectors \[N, D\]"),
        ({"models": ["mosaiks", "mosaiks_rcf"]}, "each model once"),
        ({"models": "mosaiks:patch"}, "knobs as name=value"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(options, wanted):
    given = {"models": {"own": np.zeros((40, 2))}, "label": "cover", **options}
    with pytest.raises(SpecError, match=wanted):
        evaluate(given["models"], plots(40), given["label"], out=None, backend=None)


def test_labels_that_were_read_take_no_options_for_reading():
    labels = read_labels(plots(40), "cover")
    with pytest.raises(SpecError, match="labels alone"):
        evaluate({"own": np.zeros((40, 2))}, labels, "cover", out=None, backend=None)


def test_a_text_names_models_knobs_and_combinations():
    assert split_models("a,b:layers=5,11:patch_size=4,c+d:layers=-1,-2,e") == [
        *("a", "b:layers=5,11:patch_size=4", "c+d:layers=-1,-2", "e")
    ]
    (both,) = variants_of("thor_1_0_tiny:layers=5,11:pooling=max+mosaiks")
    assert both.name == "thor_1_0_tiny (layers=5,11, pooling=max) + mosaiks_rcf"
    assert [(part.card.id, part.knobs, part.pooling) for part in both.parts] == [
        ("thor_1_0_tiny", {"layers": "5,11"}, "max"),
        ("mosaiks_rcf", {}, "mean"),
    ]
    named = variants_of({"deep": ("thor_1_0_tiny", {"layers": [5, 11], "modality": "s2+s1"})})
    assert named[0].name == "deep" and named[0].parts[0].modality == ["s2", "s1"]


def query_of(bands, provider):
    from rs_embed import PointBuffer, SensorSpec, geobox_for

    sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", bands)
    return Query("s2", sensor, geobox_for(PointBuffer(7, 50, 160), 10), None)


def test_models_with_other_bands_share_one_read_and_get_the_same_pixels():
    provider = FieldProvider()
    one, other = (query_of(bands, provider) for bands in (("B4", "B3"), ("B8", "B4")))
    once = OneFetch(provider, [("s2", one.sensor), ("s2", other.sensor)])
    chips = [once.fetch(query) for query in (one, other, one)]

    assert [query.sensor.bands for query in provider.queries] == [("B3", "B4", "B8")]
    for chip, query in zip(chips, (one, other, one), strict=True):
        np.testing.assert_array_equal(chip.values, FieldProvider().fetch(query).values)
        assert chip.band_names == query.sensor.bands


def test_band_statistics_are_the_mean_and_the_spread_of_the_pixels_and_of_indices():
    from rs_embed import PointBuffer, get_embedding

    card = get_card("mosaiks_rcf")
    (modality,) = card.modalities
    (part,) = merged_inputs([(modality, modality.sensor, card.knobs())])
    place = PointBuffer(7, 50, 160)
    moments = get_embedding(part.card, place, backend=FieldProvider()).data
    found = statistics(moments[None], channels_of(part.card))[0]

    chip = FieldProvider().fetch(query_of(modality.sensor.bands, None)).values[0].astype(np.float64)
    names = list(modality.sensor.bands)
    mean, std = (
        np.array([getattr(modality.stats[name], what) for name in names])[:, None, None] for what in ("mean", "std")
    )
    nir, red = chip[names.index("B8")], chip[names.index("B4")]
    np.testing.assert_allclose(found[:12], ((chip - mean) / std).mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[16:28], ((chip - mean) / std).std(axis=(1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[12], ((nir - red) / (nir + red)).mean(), rtol=1e-4)


def test_numbers_and_several_labels_have_their_own_scores():
    frame, rng = plain(80), np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    for values, metric in (
        (x[:, 0] + 0.1, "R2"),
        ([";".join(["a"] * int(a > 0) + ["b"] * int(b > 0)) or ";" for a, b, _ in x], "mAP"),
    ):
        found = evaluate({"own": x}, frame.assign(y=pd.Series(values)), "y", out=None, backend=None)
        assert found.metric == metric and found["own"].main.low > 0.5
        json.dumps(found.to_dict(), allow_nan=False)
