"""A figure as SVG inside the page: colours of the page, and parts that can be pointed at.

The page's policy refuses inline styles, so what matplotlib writes as ``style`` becomes attributes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from convnext_study.results.report.figures.style import COLOURS, KINDS, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVER = "over"  # the key of what lies over all groups and is not pointed at

_VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
_HREF = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {"font-family", "stroke-dashoffset", "clip-path", "stroke-linejoin"}


@style()
def inline(
    figure: Figure,
    key: str,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    **attributes: Any,
) -> Markup:
    """An ``svg`` element with these attributes; ``key`` begins the ids in it.

    What `style.mark` gave one key becomes one ``g``, or ``a`` if it has ``href``, with the
    attributes that ``groups`` holds for the key. A lone path gets the id ``{key}-{its key}`` and
    leaves its look to the group, so that ``use`` can draw it in another one. Groups lie over all
    that has no key, which is in a group with the id ``key``. Text is escaped and takes the page's
    font.
    """
    groups = groups or {}
    view = view_box(*figure.get_size_inches())
    svg = ET.Element("svg", _texts({"viewBox": view, **attributes}))
    symbols, frame = ET.SubElement(svg, "defs"), ET.SubElement(svg, "g", id=key)
    over = ET.Element("g", {"class": OVER})
    made = {
        name: ET.SubElement(svg, "a" if "href" in about else "g", _texts(about))
        for name, about in groups.items()
    }
    for gid, element in _shapes(_draw(figure)):
        name, _, class_ = gid.partition("/")
        _restyle(element, key)
        if class_:
            element.set("class", class_)
        if "id" in element.attrib:
            symbols.append(element)
        else:
            (over if name == OVER else made.get(name, frame)).append(element)
    for name, group in made.items():
        if [one.tag for one in group] == ["path"]:
            path = {"id": f"{key}-{name}", "d": group[0].attrib.pop("d")}
            group.attrib = {**group[0].attrib, **group.attrib}
            group[0].attrib = path
    svg.append(over)
    return Markup(ET.tostring(svg, encoding="unicode").replace(" />", "/>"))  # noqa: S704  escaped


def view_box(width: float, height: float) -> str:
    """Of a figure of so many inches, in points."""
    return f"0 0 {72 * width:g} {72 * height:g}"


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    """As in Markup: ``aria_label`` is ``aria-label``, and None is left out."""
    return {
        name.rstrip("_").replace("_", "-"): str(value)
        for name, value in attributes.items()
        if value is not None
    }


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
        elif child.tag in ("path", "text", "use", "image"):
            yield gid, child


def _restyle(element: ET.Element, key: str) -> None:
    """Attributes for styles, the page's colours, ids that are the page's only ones, few digits."""
    for part in element.attrib.pop("style", "").split("; "):
        name, _, value = part.partition(": ")
        if name and name not in _DROPPED:
            element.set(name, _VARIABLES.get(value, value))
    element.attrib.pop("clip-path", None)  # what would leave its axes is cut before
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "id" in element.attrib:
        element.set("id", f"{key}-{element.get('id')}")
    if _HREF in element.attrib:
        element.set("href", f"#{key}-{element.attrib.pop(_HREF)[1:]}")
    for name in ("d", "x", "y"):
        if name in element.attrib:
            element.set(name, _short(element.attrib[name]))


def _short(path: str) -> str:
    """Coordinates to a tenth of a point; lines after a move need no letter."""
    path = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]) + 0.0:.1f}", path)
    path = re.sub(r"\s+", " ", path.replace(".0 ", " ")).strip()
    return path if "C" in path else path.replace(" L ", " ")
