"""Writes the man pages: one for automx, and one for each of its commands with their subcommands.

``make man`` runs it with a folder. All is taken from the command line's own help. click-man is no
choice: it looks for commands without loading them, and leaves out what stands below the options.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from inspect import cleandoc
from os import environ
from pathlib import Path

import click

from automx import __version__
from automx.cli import COMMANDS, main
from docs import project
from docs.project import Project

_FILES = """\
.SH FILES
.TP
.I /etc/automx/automx.conf
The settings. The first of $AUTOMX_CONF, ~/.automx.conf, /etc/automx/automx.conf and
/etc/automx.conf is read.
.SH ENVIRONMENT
.TP
.B AUTOMX_CONF
The file of the settings.
.TP
.BI AUTOMX_ KEY
The setting
.IR key ,
instead of what the file says.
"""
_ALSO = ".SH SEE ALSO\n.BR automx (1)\n"
_NOTHING = "\\&"  # an empty line would be one on the page


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name of each man page, without its section, and its source for roff."""
    root = click.Context(main, info_name="automx", **main.context_settings)
    yield "automx", _page(root, "".join(_commands()) + _FILES + home(project.current()))
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        if command is None:
            raise LookupError(name)
        context = click.Context(command, info_name=name, parent=root)
        yield f"automx-{name}", _page(context, "".join(_subcommands(context)) + _ALSO)


def home(project_: Project) -> str:
    """Return the section about where the project is, "" if that is not known."""
    return f".SH HOMEPAGE\n{literal(project_.repository)}\n" if project_.repository else ""


def _page(context: click.Context, rest: str) -> str:
    name = context.command_path.replace(" ", "-")
    day = datetime.fromtimestamp(int(environ.get("SOURCE_DATE_EPOCH") or _now()), UTC)
    title = f'"{name.upper()}" "1" "{day:%Y-%m-%d}" "automx {__version__}" "automx"'
    # What "whatis" shows ends with no full stop.
    short = literal(_first_sentence(context.command)).removesuffix(".")
    return (
        f".TH {title}\n.SH NAME\n{literal(name)} \\- {short}\n"
        f".SH SYNOPSIS\n{_synopsis(context)}.SH DESCRIPTION\n{_help(context.command)}"
        f"{_options(context, '.SH OPTIONS')}{_epilog(context.command)}{rest}"
    )


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _synopsis(context: click.Context) -> str:
    words = " ".join(context.command.collect_usage_pieces(context))
    return f".B {literal(context.command_path)}\n{literal(words)}\n"


def _commands() -> Iterator[str]:
    yield ".SH COMMANDS\n"
    for name, (_, sentence) in COMMANDS.items():
        yield f".TP\n.BR automx\\-{literal(name)} (1)\n{literal(sentence)}\n"


def _subcommands(context: click.Context) -> Iterator[str]:
    """Yield a section for each subcommand; they have none themselves."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    yield ".SH COMMANDS\n"
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            below = click.Context(command, info_name=name, parent=context)
            yield f".SS {literal(below.command_path)}\n{_synopsis(below)}.PP\n{_help(command)}"
            yield _options(below, "")


def _options(context: click.Context, heading: str) -> str:
    options = [each for each in context.command.params if isinstance(each, click.Option)]
    records = [option.get_help_record(context) for option in options]
    if heading:  # a section for subcommands need not repeat --help
        help_option = context.command.get_help_option(context)
        records += [help_option.get_help_record(context)] if help_option else []
    found = [record for record in dict.fromkeys(records) if record is not None]
    rows = [f".TP\n.B {literal(names)}\n{literal(text) or _NOTHING}\n" for names, text in found]
    return (f"{heading}\n" if heading and rows else "") + "".join(rows)


def _help(command: click.Command) -> str:
    return _paragraphs(cleandoc(command.help or "").partition("\f")[0])


def _epilog(command: click.Command) -> str:
    return f".SH NOTES\n{_paragraphs(cleandoc(command.epilog))}" if command.epilog else ""


def _paragraphs(text: str) -> str:
    r"""Return paragraphs for roff; those that begin with ``\b`` keep their lines, as in click."""
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            lines = "\n".join(literal(line) for line in paragraph.splitlines()[1:])
            parts.append(f".nf\n{lines}\n.fi\n")
        else:
            parts.append(f"{literal(' '.join(paragraph.split()))}\n")
    return ".PP\n".join(parts)


def _first_sentence(command: click.Command) -> str:
    return cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")


def literal(text: str) -> str:
    """Return a line of text as roff shows it word for word."""
    escaped = text.replace("\\", "\\(rs").replace("-", "\\-").replace("'", "\\(aq")
    escaped = escaped.replace("`", "\\(ga").replace("~", "\\(ti").replace("^", "\\(ha")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def write(folder: Path) -> None:
    """Write all man pages into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages():
        (folder / f"{name}.1").write_text(page, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
