"""What a scene must have to count, and which classes of its pixels are clear. Knows no service."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CLEAR_SCL = (2, 4, 5, 6, 7, 11)
"""Dark, vegetation, bare, water, unclassified, snow. Out are 0 no data, 1 saturated, 3 shadow, 8 to 10 cloud."""


@dataclass(frozen=True)
class Condition:
    """What a scene must have to count."""

    name: str
    """For people: "cloud of at most 30 %"."""
    property: str
    relation: Literal["is", "holds", "at most"]
    value: str | float

    def met_by(self, properties: Mapping[str, object]) -> bool:
        """Whether a scene of these properties counts; one that lacks the property does not."""
        found = properties.get(self.property)
        if self.relation == "at most":
            return isinstance(found, int | float) and isinstance(self.value, int | float) and found <= self.value
        if self.relation == "holds":
            return isinstance(found, list) and self.value in found
        return found == self.value
