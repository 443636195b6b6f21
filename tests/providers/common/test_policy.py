"""The rule of all limiters, in made-up time."""

import heapq
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed.providers.common.policy import Policy, Slot


def test_a_lease_that_nobody_renews_runs_out_and_one_that_is_renewed_does_not():
    policy = Policy(2, None, 0.0)
    dead, alive = policy.take("dead", 0.0, 10.0), policy.take("alive", 0.0, 10.0)
    assert dead is not None
    assert alive is not None
    assert policy.take("third", 9.0, 10.0) is None
    policy.renew(["alive"], 9.0, 10.0)
    assert policy.take("third", 10.5, 10.0) is not None
    assert policy.take("fourth", 18.0, 10.0) is None
    policy.give_back(Slot(alive), 18.0)
    assert policy.take("fourth", 18.0, 10.0) is not None
    assert policy.in_flight(18.0) == 2
    assert policy.in_flight(28.5) == 0


def test_a_limiter_that_started_anew_learns_of_requests_under_way():
    policy = Policy(2, None, 0.0)
    policy.renew(["a", "b"], 0.0, 10.0)
    assert policy.take("c", 1.0, 10.0) is None


@settings(deadline=None)
@given(
    ceiling=st.integers(1, 12), bears=st.integers(1, 12), qps=st.sampled_from([None, 5.0, 50.0]), seed=st.integers(0)
)
def test_whatever_happens_no_more_than_the_ceiling_are_under_way_and_starts_are_spaced(ceiling, bears, qps, seed):
    chance, policy, now = random.Random(seed), Policy(ceiling, qps, 0.0), 0.0
    under_way: list[tuple[float, int, Slot]] = []
    starts: list[float] = []
    for number in range(200):
        while (leave := policy.take(str(number), now)) is None:
            now, _, slot = heapq.heappop(under_way)
            if len(under_way) >= bears:
                slot.throttled(chance.uniform(0, 2))
            elif chance.random() < 0.9:
                slot.succeeded()
            policy.give_back(slot, now)
        starts.append(now + leave.wait_s)
        heapq.heappush(under_way, (starts[-1] + chance.uniform(0.01, 1), number, Slot(leave)))
        assert len(under_way) == policy.in_flight(now) <= policy.most_in_flight <= ceiling
        assert 1 <= policy.limit <= ceiling
    if qps is not None:
        gaps = [after - before for before, after in zip(sorted(starts), sorted(starts)[1:], strict=False)]
        assert min(gaps) > 0.999 / qps
