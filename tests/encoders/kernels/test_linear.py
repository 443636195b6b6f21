"""Linear maps by oneDNN against torch's own, and the rule that chooses."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from rs_embed.encoders.kernels import linear as module_under_test
from rs_embed.encoders.kernels.linear import Activation, Linear, linear, packs, prepared, using


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("name", "after"), [("none", torch.nn.Identity()), ("gelu", F.gelu), ("silu", F.silu)])
def test_prepared_linear_maps_equal_those_of_torch(
    rows: int, bf16: bool, name: Activation, after: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(rows)
    quick = torch.nn.Sequential(Linear(96, 40, after=name))
    plain = torch.nn.Linear(96, 40)
    plain.load_state_dict(quick[0].state_dict())
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(rows))
    with torch.no_grad(), using("packed"), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        expected = after(plain(x))
        with prepared(quick, device_type="cpu"):
            for shaped in (x, x[None, :, None], x.T.contiguous().T):
                actual = quick(shaped)
                assert actual.shape == (*shaped.shape[:-1], 40)
                torch.testing.assert_close(
                    actual.view(rows, 40), expected, rtol=2**-6 if bf16 else 1e-5, atol=0.01 if bf16 else 1e-5
                )
        assert torch.equal(quick(x), expected)
    assert quick(x).requires_grad


@pytest.mark.parametrize("bf16", [False, True])
def test_linear_maps_are_prepared_without_gradients_alone_and_only_as_long_as_they_work(bf16: bool) -> None:
    first = Linear(4, 4)
    module = torch.nn.Sequential(torch.nn.Sequential(first), Linear(4, 4, bias=False))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        with prepared(module, device_type="cpu"):
            assert first._ready is None
        with torch.no_grad(), using("packed"), prepared(module, device_type="cpu"):
            assert first._ready is not None and first._ready[0].is_mkldnn
    assert first._ready is None


def test_packed_weights_are_kept_until_the_weights_change() -> None:
    linear = Linear(64, 32)
    x = torch.randn(200, 64)

    def mapped(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32)
        with torch.no_grad(), autocast, using("packed"), prepared(linear, device_type="cpu"):
            return linear(x)

    first, kept = mapped(), linear._kept
    mapped()
    assert linear._kept is kept
    with torch.no_grad():
        linear.weight.mul_(2)
    torch.testing.assert_close(mapped() - linear.bias, 2 * (first - linear.bias))
    linear.load_state_dict({"weight": torch.zeros(32, 64), "bias": torch.ones(32)}, assign=True)
    assert torch.equal(mapped(), torch.ones(200, 32))
    assert mapped(torch.bfloat16).dtype == torch.bfloat16
    again = copy.deepcopy(linear)
    assert again._kept is None
    assert torch.equal(again(x), linear(x))
    assert linear.double()._kept is None


@pytest.mark.parametrize("bf16", [False, True])
def test_weights_that_are_not_kept_give_the_same_product(bf16: bool) -> None:
    x, weight, bias = torch.randn(3, 50, 96), torch.randn(40, 96), torch.randn(40)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        expected = F.linear(x, weight, bias)
        with using("packed"):
            actual = linear(x, weight, bias)
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual, expected, rtol=2**-7 if bf16 else 1e-5, atol=0.1 if bf16 else 1e-5)
    assert linear(x, weight.requires_grad_(), bias).requires_grad


@torch.no_grad()
def test_the_choice_holds_inside_alone_and_torch_packs_nothing() -> None:
    maps = torch.nn.Sequential(Linear(8, 8))
    with using("torch"), prepared(maps, device_type="cpu"):
        assert not packs(torch.float32, "cpu")
        assert maps[0]._ready is None
    with using("packed"):
        assert packs(torch.float32, "cpu")
        assert not packs(torch.float64, "cpu")
        assert not packs(torch.float32, "cuda")
        with torch.enable_grad():
            assert not packs(torch.float32, "cpu")


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", {torch.float32, torch.bfloat16}),
        ("AuthenticAMD", "AVX2", {torch.float32, torch.bfloat16}),
        ("GenuineIntel", "AVX512", {torch.bfloat16}),
        ("AuthenticAMD", "DEFAULT", set()),
        ("", "SVE256", set()),
    ],
)
@torch.no_grad()
def test_the_rule_by_processor(
    vendor: str, capability: str, expected: set[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_under_test.Path, "read_text", lambda *_, **__: f"vendor_id : {vendor}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    module_under_test._pays.cache_clear()
    try:
        assert {dtype for dtype in (torch.float32, torch.bfloat16) if module_under_test._pays(dtype)} == expected
    finally:
        module_under_test._pays.cache_clear()


@torch.no_grad()
def test_a_torch_without_the_operators_packs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        """As `torch.ops.mkldnn` of a build without oneDNN."""

    module_under_test._has_operators.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", Bare(), raising=False)
    try:
        with using("packed"):
            assert not packs(torch.float32, "cpu")
    finally:
        module_under_test._has_operators.cache_clear()
