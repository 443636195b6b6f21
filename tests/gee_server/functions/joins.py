"""Joins of two collections."""

from dataclasses import dataclass

from gee_server.functions.collections import order
from gee_server.image import Collection, Element
from gee_server.interpreter import function
from gee_server.values import Filter


@dataclass(frozen=True)
class Join:
    """How matches are kept."""

    kind: str
    key: str = ""
    other: str = ""
    ordering: str | None = None
    ascending: bool = True
    outer: bool = False


function("Join.simple")(lambda: Join("simple"))
function("Join.inverted")(lambda: Join("inverted"))
function("Join.inner")(lambda primaryKey, secondaryKey, measureKey: Join("inner", primaryKey, secondaryKey))


@function("Join.saveFirst")
def _save_first(matchKey, ordering, ascending, measureKey, outer) -> Join:
    return Join("first", matchKey, "", ordering, ascending, outer)


@function("Join.saveAll")
def _save_all(matchesKey, ordering, ascending, measureKey, outer) -> Join:
    return Join("all", matchesKey, "", ordering, ascending, outer)


@function("Join.apply")
def _apply(join: Join, primary: Collection, secondary: Collection, condition: Filter) -> Collection:
    kept: list[Element] = []
    for one in primary.elements:
        matches = [other for other in secondary.elements if condition.join(one, other)]
        if join.ordering is not None:
            matches.sort(key=lambda other: order(other.properties.get(join.ordering)), reverse=not join.ascending)
        kept += _kept(join, one, matches)
    return Collection(kept)


def _kept(join: Join, one: Element, matches: list[Element]) -> list[Element]:
    if join.kind == "inner":
        return [Element({join.key: one, join.other: match}) for match in matches]
    if join.kind == "inverted":
        return [] if matches else [one]
    if not matches and not join.outer:
        return []
    if join.kind == "simple":
        return [one]
    saved = matches if join.kind == "all" else next(iter(matches), None)
    return [one.with_properties({**one.properties, join.key: saved})]
