"""Writing SVG: tags, text that is valid XML whatever it came from, and a document that is readable
on a light and on a dark screen.
"""

from __future__ import annotations

import re

# What XML 1.0 allows nowhere, section 2.2: control characters, lone surrogates, the two
# non-characters. Compiled when it is first needed: that would be a fifth of the time of the import
# of this package.
_FORBIDDEN = "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})
_STYLE = """
.minigrad text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #30343b; }
.minigrad .heading { font-weight: 600; font-size: 13px; }
.minigrad .soft { fill: #6b7280; }
.minigrad .small { font-size: 10px; }
.minigrad .ground { fill: #ffffff; }
.minigrad .grid { stroke: #e5e7eb; stroke-width: 1; }
.minigrad .axis { stroke: #9ca3af; stroke-width: 1; fill: none; }
@media (prefers-color-scheme: dark) {
  .minigrad text { fill: #d7dbe2; }
  .minigrad .soft { fill: #9aa3b0; }
  .minigrad .ground { fill: #14171c; }
  .minigrad .grid { stroke: #2a2f38; }
  .minigrad .axis { stroke: #6b7280; }
}
"""


def escape(text: str) -> str:
    """The text as it may stand in XML, between tags and in an attribute; what XML forbids becomes
    U+FFFD.
    """
    return re.sub(_FORBIDDEN, "\ufffd", text).translate(_ESCAPES)


def number(value: float) -> str:
    """A length in pixels, to the hundredth, as short as it can be written."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def tag(tag_name: str, *inside: str, **attributes: object) -> str:
    """<tag_name attributes>inside</tag_name>. Floats are written as lengths; stroke_width means
    stroke-width, class_ class; None is left out.

    inside: SVG already; text goes through `escape`.
    """
    parts = [tag_name]
    for key, value in attributes.items():
        if value is not None:
            shown = number(value) if isinstance(value, float) else escape(str(value))
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{shown}"')
    opening = " ".join(parts)
    return f"<{opening}>{''.join(inside)}</{tag_name}>" if inside else f"<{opening}/>"


def text(x: float, y: float, content: str, anchor: str | None = None, **attributes: object) -> str:
    """A line of text; anchor "middle" or "end" says what of it is at x."""
    return tag("text", escape(content), x=float(x), y=float(y), text_anchor=anchor, **attributes)


def shortened(content: str, width: float) -> str:
    """The text, cut in its middle to about `width` pixels, of which a letter takes 6.6: names of
    runs tend to differ at their ends.
    """
    room = max(int(width / 6.6), 3)
    return (
        content
        if len(content) <= room
        else content[: room // 2] + "…" + content[len(content) - (room - room // 2 - 1) :]
    )


def document(width: float, height: float, title: str, body: list[str]) -> str:
    """The whole picture, with a ground to stand on: a viewer's own may be light or dark."""
    ground = tag("rect", class_="ground", width=float(width), height=float(height))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="minigrad" role="img" width="{number(width)}" height="{number(height)}" '
            f'viewBox="0 0 {number(width)} {number(height)}">',
            tag("title", escape(title)),
            tag("style", _STYLE),
            ground,
            *body,
            "</svg>\n",
        ]
    )
