"""HTML and SVG as text, in which nothing from outside can end up as markup: what is not Markup is escaped."""

import html
import re

_VOID = {"meta"}
# What a page may not hold even escaped: control characters, and halves of surrogate pairs, which JSON can carry.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Finished markup; goes into other markup as it is."""


def escaped(content: object) -> Markup:
    """`content` as text of a page or value of an attribute."""
    if isinstance(content, Markup):
        return content
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", str(content)), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element; `class_` stands for class, `_` within a name for `-`. What is None is left out."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escaped(_short(value))}"')
    opened = f"<{' '.join(parts)}>"
    return Markup(opened if name in _VOID else f"{opened}{joined(*children)}</{name}>")


def joined(*children: object) -> Markup:
    """Elements and texts, one after the other."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def _short(value: object) -> object:
    """Coordinates to a tenth of a pixel: the rest is only bytes."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
