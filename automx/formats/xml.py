"""XML: documents in a form that all mail clients read, and documents of strangers.

What is written is indented, without namespace prefixes. What is read may be hostile: it has no
document type, and so no entities, and nothing is fetched.
"""

from typing import Any
from xml.etree import ElementTree

from lxml import etree

Read = ElementTree.Element  # an element of a document that was read

_MAX_DEPTH = 100  # of elements in a document that is read; clients send three

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


class UnreadableError(ValueError):
    """What is no XML document for us; the text goes on after its name, as in "is not XML".

    ``line`` is that of the fault, 0 if it has none.
    """

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


class _Tree(ElementTree.TreeBuilder):
    """The elements of a document, which has no document type, and so no entities."""

    _depth = 0

    def start(self, *args: Any) -> Read:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableError("is nested too deeply")
        return super().start(*args)

    def end(self, tag: str) -> Read:
        self._depth -= 1
        return super().end(tag)

    def doctype(self, *_: object) -> None:
        raise UnreadableError("must not have a document type")


def read(data: bytes) -> Read:
    """Return the root element of a document. Raises UnreadableError.

    The parser is that of the standard library: lxml never frees the element names of its input, so
    that hostile documents could fill the memory.
    """
    parser = ElementTree.XMLParser(target=_Tree())  # noqa: S314 - _Tree refuses document types
    try:
        parser.feed(data)
        return parser.close()
    except UnreadableError:
        raise
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        line, _ = getattr(error, "position", (0, 0))
        raise UnreadableError("is not an XML document", line) from error
