"""A unit is compared with a unit, or with its name."""

import pickle

from rs_embed import Unit


def test_a_unit_is_equal_to_its_name_and_to_itself_in_another_process():
    assert Unit.DN == "dn" and Unit.DN != "db" and "dn" in (Unit.DN,)
    assert pickle.loads(pickle.dumps(Unit.DN)) == Unit.DN and hash(Unit.DN) == hash("dn")
    assert Unit("dn", factor=2.0) != Unit.DN
    assert Unit.DN != 4
