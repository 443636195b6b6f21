"""Conditions that scenes must meet, and the clear classes of their pixels; independent of any service."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CLEAR_SCL = (2, 4, 5, 6, 7, 11)
"""Dark, vegetation, bare, water, unclassified, snow. Masked are 0 no data, 1 saturated, 3 shadow, 8 to 10 cloud."""


@dataclass(frozen=True)
class Condition:
    """A condition that a scene must meet."""

    name: str
    """Text for messages: "cloud of at most 30 %"."""
    property: str
    relation: Literal["is", "holds", "at most"]
    value: str | float

    def met_by(self, properties: Mapping[str, object]) -> bool:
        """Whether a scene with these properties meets the condition; one without the property does not."""
        found = properties.get(self.property)
        if self.relation == "at most":
            return isinstance(found, int | float) and isinstance(self.value, int | float) and found <= self.value
        if self.relation == "holds":
            return isinstance(found, list) and self.value in found
        return found == self.value
