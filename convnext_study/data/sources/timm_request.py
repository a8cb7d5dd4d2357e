"""A data set's name as timm has it, taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field

STREAMS = ("tfds", "hfids")


@dataclass(frozen=True)
class Request:
    """What stands after ``timm:``."""

    name: str
    options: dict[str, str] = field(default_factory=dict)
    download: bool = False

    @property
    def kind(self) -> str:
        """``hfds``, ``torch``, ``wds``, ... or empty for a path."""
        prefix, slash, _ = self.name.partition("/")
        known = ("hfds", "torch", "wds", *STREAMS)
        return prefix.lower() if slash and prefix.lower() in known else ""

    @property
    def rest(self) -> str:
        """The name without its kind."""
        return self.name.partition("/")[2] if self.kind else self.name

    def split(self, part: str, default: str) -> str:
        """The name of a split, by its option or else ``default``."""
        return self.options.get(part, default)
