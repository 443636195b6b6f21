"""Attention against that of torch."""

import pytest
import torch

from rs_embed.encoders.kernels.attention import MANY_TOKENS, QUERIES_AT_ONCE, Distances, attend, attend_short
from rs_embed.encoders.kernels.linear import Kernels, using


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("queries", "tokens"), [(17, 17), (MANY_TOKENS, MANY_TOKENS), (QUERIES_AT_ONCE + 3, MANY_TOKENS + 9)]
)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kernels", ["packed", "torch"])
def test_attention_without_gradients_equals_that_of_torch(
    dtype: torch.dtype, queries: int, tokens: int, biased: bool, kernels: Kernels
) -> None:
    generator = torch.Generator().manual_seed(tokens)
    q = torch.randn(2, queries, 3, 16, generator=generator).transpose(1, 2)
    k, v = torch.randn(2, 2, tokens, 3, 16, generator=generator).transpose(2, 3)
    bias = torch.randn(2, 1, queries, tokens, generator=generator) if biased else None
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    with torch.no_grad(), using(kernels):
        actual = attend(q.to(dtype), k.to(dtype), v.to(dtype), bias).float()
    assert actual.shape == expected.shape
    atol = 1e-6 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(actual, expected, rtol=atol, atol=atol)
    torch.testing.assert_close(attend(q.requires_grad_(), k, v, bias).detach(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, torch.float32), (30, torch.float32), (200, torch.float32), (1, torch.bfloat16)]
)
def test_attention_of_short_sequences_equals_that_of_torch_however_large_the_logits(
    size: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(5)
    q, k, v = torch.randn(3, 5, 21, 4, 8, generator=generator).transpose(2, 3).to(dtype)
    q = q * size  # beyond 88, e to the power of a logit is no float32
    expected = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    with torch.no_grad():
        actual = attend_short(q, k, v).float()
    assert actual.shape == expected.shape
    tolerance = 2e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [17, QUERIES_AT_ONCE + 3])
@pytest.mark.parametrize("kernels", ["packed", "torch"])
def test_distances_weaken_as_their_dense_form_does(dtype: torch.dtype, tokens: int, kernels: Kernels) -> None:
    generator = torch.Generator().manual_seed(tokens)
    q, k, v = torch.randn(3, 2, 3, tokens, 16, generator=generator)
    slopes = torch.tensor([-1.0, -0.25, -0.03])
    distances = Distances(3 * torch.rand(tokens, tokens, generator=generator), slopes)
    dense = distances.dense(torch.float32)
    torch.testing.assert_close(dense[0, 1], -0.25 * distances.distance(torch.float32))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense)
    with torch.inference_mode(), using(kernels):
        actual = attend(q.to(dtype), k.to(dtype), v.to(dtype), distances).float()
    tolerance = 1e-6 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    trained = attend(q.requires_grad_(), k, v, distances)  # with what inference kept
    torch.testing.assert_close(trained.detach(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [17, MANY_TOKENS])
@pytest.mark.parametrize(("longer", "shift"), [(30.0, 0.0), (1.0, 100.0), (1.0, -100.0), (0.1, -74.0)])
def test_logits_beyond_the_range_of_powers_are_attended_to_as_well(
    dtype: torch.dtype, tokens: int, longer: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(tokens)
    q, k, v = torch.randn(3, 1, 2, tokens, 16, generator=generator).to(dtype)
    q = longer * q
    bias = torch.full((1, 1, tokens, tokens), shift)
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), bias.double())
    with torch.inference_mode(), using("packed"):
        actual = attend(q, k, v, bias)
    tolerance = 2e-5 if dtype == torch.float32 else 0.4  # there, bf16 knows whole powers of 2
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


def test_distances_are_converted_once() -> None:
    distances = Distances(torch.rand(5, 5), -torch.rand(2))
    assert distances.distance(torch.bfloat16) is distances.distance(torch.bfloat16)
