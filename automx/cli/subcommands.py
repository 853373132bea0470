"""Groups of commands that answer the words of other programs with their own."""

import click

# Words that people try, and what stands for them: of several, the first that a group has.
_WORDS = {
    "delete": ("del", "revoke"),
    "remove": ("del", "revoke"),
    "rm": ("del", "revoke"),
    "del": ("revoke",),
    "create": ("add",),
    "new": ("add",),
    "change": ("set", "mod", "rotate"),
    "edit": ("set", "mod", "rotate"),
    "modify": ("set", "mod", "rotate"),
    "mod": ("set",),
    "rename": ("set",),
    "set": ("mod", "rotate"),
    "update": ("set", "mod", "rotate"),
    "get": ("show", "list"),
    "info": ("show", "list"),
    "print": ("show", "list"),
    "show": ("list",),
    "ls": ("list",),
    "off": ("disable", "revoke"),
    "on": ("enable",),
}


class Subcommands(click.Group):
    """A group such as ``automx domain``, which knows what other programs call its commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is asked for; another word for one is an error that names it."""
        word = args[0].lower() if args else ""
        if args and args[0] not in self.commands and not ctx.resilient_parsing:
            for ours in (word, *_WORDS.get(word, ())):
                if ours in self.commands:
                    ctx.fail(f"No such command '{args[0]}'. Did you mean '{ours}'?")
            if "show" in self.commands and set(word) & set(".@"):  # the name of a row
                ctx.fail(f"No such command '{args[0]}'. Did you mean 'show {args[0]}'?")
        return super().resolve_command(ctx, args)
