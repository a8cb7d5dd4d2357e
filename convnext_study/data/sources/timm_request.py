"""A data set's name as timm has it, taken apart (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

STREAMS = ("tfds", "hfids")
_KINDS = ("hfds", "torch", "wds", *STREAMS)


@dataclass(frozen=True)
class Request:
    """What stands after ``timm:``."""

    name: str
    options: dict[str, str] = field(default_factory=dict)
    download: bool = False
    val_alone: bool = False

    @property
    def kind(self) -> str:
        """``hfds``, ``torch``, ``wds``, ... or empty for a path."""
        prefix, slash, _ = self.name.partition("/")
        return prefix.lower() if slash and prefix.lower() in _KINDS else ""

    @property
    def rest(self) -> str:
        """The name without its kind."""
        return self.name.partition("/")[2] if self.kind else self.name

    def split(self, part: str, default: str) -> str:
        """The name of a split, by its option or else ``default``."""
        return self.options.get(part, default)


def take_apart(text: str) -> Request:
    """``NAME?OPTION=VALUE&...`` as a name and its options, whatever these are."""
    name, _, rest = text.partition("?")
    pairs = [pair.partition("=") for pair in rest.split("&") if pair]
    return Request(name, {key: value for key, _, value in pairs})


def without_place(text: str) -> str:
    """What a request says besides where files are.

    The images of folders and tars tell by themselves which options chose them, all but ``size``;
    of other kinds not everything can be had without reading, and the name and the options stay.
    """
    request = take_apart(text)
    options = {key: value for key, value in request.options.items() if key != "root"}
    name = request.kind
    if request.kind in ("", "wds"):
        options = {key: value for key, value in options.items() if key == "size"}
    elif not Path(request.rest).expanduser().exists():  # else a local folder of Hugging Face's
        name = f"{request.kind}/{request.rest}"
    return name + "".join(f"?{key}={options[key]}" for key in sorted(options))
