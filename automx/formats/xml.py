"""Writes XML documents in a form that all mail clients read: indented, no namespace prefixes."""

from lxml import etree

Element = etree._Element  # noqa: SLF001 - lxml has no public name for the type


def root(name: str, **attributes: str) -> Element:
    """Return the root element of a new document."""
    return etree.Element(name, attributes)


def add(parent: Element, name: str, text: str | None = None, **attributes: str) -> Element:
    """Add an element at the end of another and return it; it is empty if ``text`` is None."""
    element = etree.SubElement(parent, name, attributes)
    element.text = text
    return element


def to_bytes(root: Element) -> bytes:
    """Return the document of a root element, in UTF-8, with line ends and indentation."""
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True, pretty_print=True)
