"""Texts for people that stand far from the edge: marked here, translated where they are shown."""


def N_(text: str) -> str:  # noqa: N802 - the name that gettext, Babel and editors of catalogues know
    """Mark a text for the catalogues in ``automx/translations``; return it as it is, in English."""
    return text
