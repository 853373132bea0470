"""``automx serve``: the web server."""

import click


@click.command
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=4243, show_default=True, type=click.IntRange(1, 65535), help="Port."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Number of processes; by default one for each processor, at most 4, and 1 for a database"
    " in memory.",
)
@click.option("--examples", is_flag=True, help="Print four URLs to try with the sample data.")
def serve(host: str, port: int, workers: int | None, examples: bool) -> None:
    """Answer mail clients until SIGTERM or Ctrl-C.

    Requests in flight are finished then.

    Exit status: 0 after SIGTERM, 130 after Ctrl-C, 1 if automx cannot start.
    """
    from automx.cli import server  # noqa: PLC0415 - all of automx, which --help does not need

    server.run(host, port, workers, examples=examples)
