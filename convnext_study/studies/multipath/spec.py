"""A multi-path network as data (no torch here). Our reconstruction: the paper's table is unknown.

The defaults are the small network of 5.3 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convnext_study.roadmap.spec import Spec, SpecError, check_choice, check_count

STAGES = 3
SE_REDUCTION = 16  # channels for each hidden unit of squeeze and excitation

CHOICES: dict[str, tuple[str, ...]] = {
    "block": ("multipath", "basic"),
    "attention": ("none", "path", "se"),
}


@dataclass(frozen=True, kw_only=True)
class MultipathSpec(Spec):
    """The structure of a network. Hashable, and unchanged by a round trip through JSON.

    Args:
        block: ``multipath`` is the module of parallel paths; ``basic`` the plain block to compare
            it with: ``depths[0]`` 3x3 convolutions beside a shortcut, without 1x1 convolutions.
        depths: 3x3 convolutions in each path, in ascending order, since the order of paths does not
            matter. A path of depth 0 is just its 1x1 convolution.
        width: channels of a path in stage 1, doubled at each further stage.
        modules: per stage, of three.
        attention: ``none``; ``path``: one learned weight per path; ``se``: squeeze and excitation
            on the concatenated channels.

    Raises:
        SpecError: an invalid value, in one line that names the field.
    """

    block: str = "multipath"
    depths: tuple[int, ...] = (1, 2, 3, 4)
    width: int = 16
    modules: int = 2
    attention: str = "none"

    @classmethod
    def kind(cls) -> str:
        """The network's name in errors."""
        return "a multi-path network"

    def check(self) -> None:
        """Raises SpecError."""
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name in ("width", "modules"):
            check_count(name, getattr(self, name))
        _check_depths(self.depths)
        if self.block == "basic" and len(self.depths) != 1:
            raise SpecError(f"depths: {self.depths!r}; a basic block has one path, such as (2,)")
        if self.block == "basic" and self.attention == "path":
            raise SpecError("attention: a basic block has no paths to weigh; use none or se")

    def path_widths(self) -> tuple[int, ...]:
        """Channels of one path in each stage."""
        return tuple(self.width * 2**stage for stage in range(STAGES))

    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's output: those of all its paths."""
        return tuple(width * len(self.depths) for width in self.path_widths())


def _check_depths(depths: Any) -> None:
    if not isinstance(depths, tuple) or not depths:
        raise SpecError(f"depths: {depths!r}; use one number for each path")
    if any(type(depth) is not int or depth < 0 for depth in depths):
        raise SpecError(f"depths: {depths!r}; use whole numbers of at least 0")
    if list(depths) != sorted(depths):
        raise SpecError(
            f"depths: {depths!r}; put them in ascending order, as {tuple(sorted(depths))}"
        )
    if depths[-1] == 0:
        raise SpecError(f"depths: {depths!r}; at least one path needs a 3x3 convolution")


SMALL = MultipathSpec()
# Equal depths, and exactly the number of parameters of SMALL.
SMALL_EQUAL = MultipathSpec(depths=(2, 2, 3, 3))
LARGE = MultipathSpec(width=40)
# As large, but with more paths and modules, where LARGE has wider paths.
LARGE_PATHS = MultipathSpec(depths=(0, 1, 2, 3, 4, 5, 6, 7), modules=4)
# The plain network of SMALL's size: 44 is the width at which it has 5.3 MB.
BASIC = MultipathSpec(block="basic", depths=(2,), width=44)
