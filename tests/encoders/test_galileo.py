"""The encoder computes with the trained weights what the authors' code computed with them; each golden case runs."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from shared_data import trained
from torch import Tensor

from rs_embed.encoders.galileo.embedding import MOST_DATES, code, month_table, shrinking
from rs_embed.encoders.galileo.encoder import GalileoEncoder, GroupTokens
from rs_embed.encoders.galileo.groups import GROUPS, SPACE, SPACE_TIME, STATIC, TIME
from rs_embed.errors import BandMismatch, InputError, RSEmbedError, SpecError

GOLDEN = Path(__file__).parents[1] / "data" / "golden_trained"
FACTS = json.loads((GOLDEN / "galileo_nano.json").read_text())
CASES = sorted(FACTS["cases"])
NANO = {"dim": 128, "depth": 4, "heads": 8}
KINDS = {"space_time": SPACE_TIME, "space": SPACE, "time": TIME, "static": STATIC}


class Case(NamedTuple):
    """One call of the authors' code."""

    groups: dict[str, Tensor]
    visible: dict[str, Tensor]
    months: Tensor
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]

    def run(self, encoder: GalileoEncoder, **options) -> GroupTokens:
        call = {"patch_px": self.facts["patch_size"], "pixel_m": float(self.facts["input_resolution_m"])}
        return encoder(self.groups, self.months, visible=self.visible, **call | options)


def read_case(name: str, only: str = "") -> Case:
    """As our encoder takes it: groups that are hidden everywhere are left out."""
    facts = FACTS["cases"][name]
    with np.load(GOLDEN / facts["file"]) as file:
        arrays = dict(file)
    patch, groups, visible = facts["patch_size"], {}, {}
    for kind, members in KINDS.items():
        values, hidden = (torch.from_numpy(arrays[f"{part}_{kind}"]) for part in ("norm", "mask"))
        start = 0
        for i, (group, channels) in enumerate(members.items()):
            part, seen = values[..., start : start + len(channels)], hidden[..., i] == 0
            start += len(channels)
            if not seen.any():
                continue
            if kind in ("space_time", "space"):
                seen = seen[:, ::patch, ::patch]
                part = part.movedim(-1, 1)
            if kind == "space_time":  # [batch, channel, row, col, time]
                part, seen = part.permute(0, 4, 1, 2, 3), seen.movedim(3, 1)
            groups[group], visible[group] = part.contiguous(), seen
    return Case(groups, visible, torch.from_numpy(arrays["months"]), arrays, facts)


def as_published(tokens: GroupTokens, case: Case) -> dict[str, tuple[Tensor, Tensor]]:
    """Kind -> what the authors' tensor has where something is visible, and ours."""
    found = {}
    for kind, members in KINDS.items():
        for i, name in enumerate(members):
            if name not in tokens.values:
                continue
            ours, theirs = tokens.values[name], torch.from_numpy(case.arrays[f"tokens_{kind}"])[..., i, :]
            seen = tokens.visible[name]
            theirs = theirs.movedim(3, 1) if kind == "space_time" else theirs
            found[name] = theirs[seen], ours[seen]
    return found


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 + 5e-6 * expected.abs().max().item())


@pytest.fixture(scope="module")
def encoder() -> GalileoEncoder:
    encoder = GalileoEncoder(**NANO)
    state = torch.load(trained("galileo_nano/encoder.pt"), map_location="cpu", weights_only=True)
    encoder.load_state_dict(state, strict=True)
    return encoder.eval().requires_grad_(False)


@pytest.mark.parametrize("name", CASES)
def test_every_token_vector_and_grid_is_that_of_the_authors_code(encoder, name):
    case = read_case(name)
    tokens = case.run(encoder)
    published = as_published(tokens, case)
    assert sum(len(theirs) for theirs, _ in published.values()) == sum(case.facts["visible_tokens"])
    for theirs, ours in published.values():
        assert_close(ours, theirs)
    assert_close(tokens.average(), torch.from_numpy(case.arrays["average_tokens"]))
    assert_close(tokens.per_patch(), torch.from_numpy(case.arrays["per_patch"]))


def test_hidden_tokens_change_nothing_and_items_of_a_batch_may_hide_others(encoder):
    case = read_case("galileo_nano_random_masked_p2")
    together = case.run(encoder)
    noise = {name: values.clone() for name, values in case.groups.items()}
    for name, seen in case.visible.items():
        if name in TIME or name in STATIC:
            noise[name][~seen] = 1e3
    for item in range(2):
        alone = encoder(
            {name: values[item : item + 1] for name, values in noise.items()},
            case.months[item : item + 1],
            patch_px=2,
            visible={name: seen[item : item + 1] for name, seen in case.visible.items()},
        )
        torch.testing.assert_close(alone.average()[0], together.average()[item], rtol=0, atol=2e-6)
        torch.testing.assert_close(alone.per_patch()[0], together.per_patch()[item], rtol=0, atol=2e-6)


def test_shares_of_patches_together_are_all_tokens(encoder):
    tokens = read_case("galileo_nano_random_masked_p2").run(encoder)
    sums, counts = tokens.shares()
    torch.testing.assert_close(sums.sum((1, 2)) / counts.sum((1, 2))[:, None], tokens.average())


def test_where_everything_is_hidden_tokens_are_zero(encoder):
    case = read_case("galileo_nano_s2_p8")
    nothing = {name: torch.zeros_like(seen) for name, seen in case.visible.items()}
    tokens = case._replace(visible=nothing).run(encoder)
    assert not tokens.average().any() and not tokens.per_patch().any()


def test_the_place_of_a_patch_counts_in_pixels_of_ten_metres(encoder):
    case = read_case("galileo_nano_s2_p8")
    wide = case.run(encoder, pixel_m=20.0).average()
    assert (wide - case.run(encoder).average()).abs().max() > 1e-2
    one = {name: values[..., :8, :8] for name, values in case.groups.items()}
    alone = [encoder(one, case.months, patch_px=8, pixel_m=size).average() for size in (10.0, 20.0)]
    assert torch.equal(*alone)  # at the corner the code is that of 0, whatever the step


def test_tables_of_the_file_are_those_of_the_formulas(encoder):
    state = encoder.state_dict()
    torch.testing.assert_close(state["pos_embed"], code(torch.arange(MOST_DATES), 32), rtol=0, atol=2e-6)
    torch.testing.assert_close(state["month_embed.weight"], month_table(32), rtol=0, atol=1e-6)
    random = GalileoEncoder(**NANO)
    random.init_random(0)
    torch.testing.assert_close(random.pos_embed, encoder.pos_embed, rtol=0, atol=2e-6)


@pytest.mark.parametrize("patch_px", range(1, 8))
def test_a_shrunken_kernel_gives_for_shrunken_patches_what_the_whole_one_gave(patch_px):
    """Of patches that are enlarged from few pixels, shrinking loses nothing."""
    generator = torch.Generator().manual_seed(patch_px)
    kernel, small = (torch.randn(size, generator=generator) for size in ((5, 64), (3, patch_px**2)))
    enlarged = small @ shrinking(patch_px)  # the least of all that shrink to it
    torch.testing.assert_close(small @ (shrinking(patch_px) @ kernel.T), enlarged @ kernel.T, rtol=1e-4, atol=1e-4)


def test_kernels_are_resized_anew_when_weights_are_loaded(encoder):
    case, other = read_case("galileo_nano_s2_p3"), GalileoEncoder(**NANO).eval().requires_grad_(False)
    other.init_random(1)
    with torch.inference_mode():
        case.run(other)
        other.load_state_dict(encoder.state_dict())
        assert_close(case.run(other).average(), torch.from_numpy(case.arrays["average_tokens"]))


def test_it_learns(encoder):
    learner = GalileoEncoder(dim=32, depth=1, heads=2)
    learner.init_random(0)
    case = read_case("galileo_nano_s2_p3")
    case.run(learner).average().square().sum().backward()
    assert learner.space_time_embed["S2_RGB"].proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"patch_px": 9}, SpecError, "1 to 8 px, got 9"),
        ({"patch_px": 5}, InputError, "whole patches of 5 pixels, got 8 x 8"),
        ({"groups": {}}, InputError, "got none"),
        ({"groups": {"S3": torch.zeros(1, 1, 2, 8, 8)}}, SpecError, "no group 'S3'"),
        ({"groups": {"S1": torch.zeros(1, 1, 3, 8, 8)}}, BandMismatch, "S1"),
        ({"groups": {"S1": torch.zeros(1, 2, 2, 8, 8)}}, BandMismatch, "S1"),
        ({"groups": {"location": torch.zeros(1, 3, 8, 8)}}, BandMismatch, "location"),
        ({"groups": {"SRTM": torch.zeros(1, 2, 8, 8), "S1": torch.zeros(1, 1, 2, 16, 8)}}, InputError, "of one size"),
        ({"months": torch.zeros(1, 25, dtype=torch.long)}, InputError, "at most 24 dates, got 25"),
    ],
)
def test_what_it_cannot_encode_is_refused(change, error: type[RSEmbedError], says):
    call = {"groups": {"S1": torch.zeros(1, 1, 2, 8, 8)}, "months": torch.zeros(1, 1, dtype=torch.long), "patch_px": 8}
    call |= change
    with pytest.raises(error, match=says):
        GalileoEncoder(dim=32, depth=1, heads=2)(call["groups"], call["months"], patch_px=call["patch_px"])


def test_every_group_has_an_embedding_of_its_channels():
    state = GalileoEncoder(dim=32, depth=1, heads=2).state_dict()
    for kind, members in KINDS.items():
        for name, channels in members.items():
            suffix = "proj.weight" if kind.startswith("space") else "weight"
            assert state[f"{kind}_embed.{name}.{suffix}"].shape[1] == len(channels)
    assert len(GROUPS) == 17
