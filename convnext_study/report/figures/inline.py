"""A figure as inline SVG: with the page's colours, and parts that react to the pointer.

The page's policy forbids inline styles, so matplotlib's ``style`` is split into attributes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from convnext_study.report.figures.style import COLOURS, KINDS, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {colour: f"var(--{name})" for name, colour in reversed(COLOURS.items())}
_HREF = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {"", "font-family", "stroke-dashoffset", "stroke-linejoin"}


@style()
def inline(figure: Figure, key: str, **attributes: Any) -> Markup:
    """An ``svg`` element with these attributes; the ids in it start with ``key``.

    Artists that `style.mark` gave the same attributes become one ``g`` with them, or ``a`` if they
    include ``href``, above the unmarked ones, which form a group with the id ``key``. An ``id``
    among them is moved, after the key, to the path and the path's look to the group: so ``use`` can
    draw the path again with another look. Text is escaped and takes the page's font.
    """
    names = {name.rstrip("_").replace("_", "-"): str(text) for name, text in attributes.items()}
    svg = ET.Element("svg", {"viewBox": view_box(*figure.get_size_inches()), **names})
    symbols, frame = ET.SubElement(svg, "defs"), ET.SubElement(svg, "g")
    if key:
        frame.set("id", key)
    groups: dict[str, ET.Element] = {}
    for gid, element in _shapes(_to_svg(figure)):
        _restyle(element, key)
        attrs, class_ = json.loads(gid) if gid.startswith("[") else ({}, "")
        parent = symbols if "id" in element.attrib else frame
        if attrs and parent is frame:
            name = attrs.pop("id", "")
            texts = {name: str(text) for name, text in attrs.items()}
            tag = "a" if "href" in attrs else "g"
            parent = groups.setdefault(gid.rpartition(",")[0], ET.Element(tag, texts))
            if name:
                path = {"id": f"{key}-{name}", "d": element.attrib.pop("d")}
                parent.attrib, element.attrib = {**element.attrib, **texts}, path
        if class_:
            element.set("class", class_)
        parent.append(element)
    svg.extend(groups.values())
    return Markup(ET.tostring(svg, encoding="unicode").replace(" />", "/>"))  # noqa: S704  escaped


def view_box(width: float, height: float) -> str:
    """The ``viewBox``, in points, of a figure of this size in inches."""
    return f"0 0 {72 * width:g} {72 * height:g}"


def _to_svg(figure: Figure) -> ET.Element:
    import matplotlib

    figure.patch.set_visible(False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata=KINDS["svg"])
    return ET.fromstring(text.getvalue())  # noqa: S314  written by matplotlib


def _shapes(node: ET.Element, gid: str = "") -> Iterator[tuple[str, ET.Element]]:
    """The drawn elements, in order, with the id of the nearest group; no group has a transform."""
    for child in node:
        child.tag, child.tail = child.tag.rpartition("}")[2], None
        if child.tag in ("g", "defs"):
            yield from _shapes(child, child.get("id", gid))
        elif child.tag in ("path", "text", "use") and child.get("style") != "fill: none":
            yield gid, child


def _restyle(element: ET.Element, key: str) -> None:
    """Turn styles into attributes, colours into the page's, ids into unique ones; round numbers."""
    for part in element.attrib.pop("style", "").split("; "):
        name, _, value = part.partition(": ")
        if name not in _DROPPED:
            element.set(name, _VARIABLES.get(value, value))
    element.attrib.pop("clip-path", None)  # values beyond the axes are cut before
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "id" in element.attrib:
        element.set("id", f"{key}-{element.get('id')}")
    if _HREF in element.attrib:
        element.set("href", f"#{key}-{element.attrib.pop(_HREF)[1:]}")
    for name in {"d", "x", "y"} & set(element.attrib):
        element.set(name, _rounded(element.attrib[name]))


def _rounded(path: str) -> str:
    """Round coordinates to a tenth of a point; lines after a move need no letter."""
    path = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]) + 0.0:.1f}", path)
    path = re.sub(r"\s+", " ", path).replace(".0 ", " ").strip()
    return path if "C" in path else path.replace(" L ", " ")
