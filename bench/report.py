"""Tables of measured values, for the terminal, for Markdown and for JSON."""

from dataclasses import dataclass, field


@dataclass
class Table:
    """The outcome of a measurement; the last column of each row is its verdict."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, *cells: str, ok: bool | None) -> None:
        """Append a row; ``ok`` tells whether it is as required, None that nothing is required."""
        verdict = {True: "ok", False: "**missed**", None: "for information"}[ok]
        self.rows.append((*cells, verdict))
        if ok is False:
            self.missed.append(f"{self.title}: {', '.join(cells)}")

    def markdown(self) -> str:
        """Return the table in Markdown, in columns that are also pleasant in a terminal."""
        lines = [(*self.columns, "result"), *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        lines.insert(1, tuple("-" * width for width in widths))
        texts = (
            " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
            for line in lines
        )
        return f"## {self.title}\n\n" + "".join(f"| {text} |\n" for text in texts)


def number(value: float, unit: str = "") -> str:
    """Return a number as people read it: three significant digits at least, thousands apart."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{' ' if unit else ''}{unit}"
