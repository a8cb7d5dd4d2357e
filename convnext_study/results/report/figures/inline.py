"""A figure as SVG inside the page: colours of the page, and parts that can be pointed at.

The page's policy refuses inline styles, so what matplotlib writes as ``style`` becomes attributes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from convnext_study.results.report.figures.style import COLOURS, KINDS, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {colour: f"var(--{name})" for name, colour in reversed(COLOURS.items())}
_HREF = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {"", "font-family", "stroke-dashoffset", "stroke-linejoin"}


@style()
def inline(figure: Figure, key: str, **attributes: Any) -> Markup:
    """An ``svg`` element with these attributes; ``key`` begins the ids in it.

    What `style.mark` gave the same attributes becomes one ``g`` with them, or ``a`` if they have
    ``href``, over all that was not marked, which is in a group with the id ``key``. An ``id`` among
    them goes, after the key, to the path, which leaves its look to the group: so ``use`` can draw
    it again in another one. Text is escaped and takes the page's font.
    """
    names = {name.rstrip("_").replace("_", "-"): str(text) for name, text in attributes.items()}
    svg = ET.Element("svg", {"viewBox": view_box(*figure.get_size_inches()), **names})
    symbols, frame = ET.SubElement(svg, "defs"), ET.SubElement(svg, "g")
    if key:
        frame.set("id", key)
    groups: dict[str, ET.Element] = {}
    for gid, element in _shapes(_draw(figure)):
        _restyle(element, key)
        about, class_ = json.loads(gid) if gid.startswith("[") else ({}, "")
        parent = symbols if "id" in element.attrib else frame
        if about and parent is frame:
            name = about.pop("id", "")
            texts = {name: str(text) for name, text in about.items()}
            tag = "a" if "href" in about else "g"
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
    """Of a figure of so many inches, in points."""
    return f"0 0 {72 * width:g} {72 * height:g}"


def _draw(figure: Figure) -> ET.Element:
    import matplotlib

    figure.patch.set_visible(False)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata=KINDS["svg"])
    return ET.fromstring(text.getvalue())  # noqa: S314  what matplotlib has just written


def _shapes(node: ET.Element, gid: str = "") -> Iterator[tuple[str, ET.Element]]:
    """What is drawn, in order, with the nearest id around it; matplotlib moves no group."""
    for child in node:
        child.tag, child.tail = child.tag.rpartition("}")[2], None
        if child.tag in ("g", "defs"):
            yield from _shapes(child, child.get("id", gid))
        elif child.tag in ("path", "text", "use") and child.get("style") != "fill: none":
            yield gid, child


def _restyle(element: ET.Element, key: str) -> None:
    """Attributes for styles, the page's colours, ids that are the page's only ones, few digits."""
    for part in element.attrib.pop("style", "").split("; "):
        name, _, value = part.partition(": ")
        if name not in _DROPPED:
            element.set(name, _VARIABLES.get(value, value))
    element.attrib.pop("clip-path", None)  # what would leave its axes is cut before
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "id" in element.attrib:
        element.set("id", f"{key}-{element.get('id')}")
    if _HREF in element.attrib:
        element.set("href", f"#{key}-{element.attrib.pop(_HREF)[1:]}")
    for name in {"d", "x", "y"} & set(element.attrib):
        element.set(name, _short(element.attrib[name]))


def _short(path: str) -> str:
    """Coordinates to a tenth of a point; lines after a move need no letter."""
    path = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]) + 0.0:.1f}", path)
    path = re.sub(r"\s+", " ", path).replace(".0 ", " ").strip()
    return path if "C" in path else path.replace(" L ", " ")
