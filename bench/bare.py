"""A bare Flask view that answers with the bytes of automx: the most that any Flask view can reach.

``wsgi`` is a function that answers so without Flask.

``python -m bench.bare`` takes the arguments of ``automx serve`` and starts the same web server with
the same options. The folder in $BENCH_BARE holds the answers: a JSON file for each, with the
members path, body and content_type.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, request

from automx.front import Front

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def create_app(folder: Path) -> Flask:
    """Return an application that answers with the files of a folder."""
    app = Flask("bare", static_folder=None)
    app.add_url_rule("/healthz", "healthz", lambda: "ok\n")
    for file in folder.glob("*.json"):
        _add_view(app, file)
    return app


def _add_view(app: Flask, file: Path) -> None:
    answer = json.loads(file.read_text())
    body, content_type = answer["body"].encode(), answer["content_type"]

    def view() -> Response:
        if request.method == "POST":  # no view can answer a request that it has not read
            request.get_data()
        return Response(body, content_type=content_type)

    app.add_url_rule(answer["path"], file.stem, view, methods=["GET", "POST"])


def wsgi(environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
    """Answer with the file of the path."""
    content_type, body = plain[environ["PATH_INFO"]]
    start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


def make() -> Front:
    """Return the application for granian, in the same front as automx."""
    return Front(app)


def main() -> None:
    """Run ``automx serve`` for this application instead of its own."""
    from automx.cli import serve, server

    server.APPLICATION = "bench.bare:make"
    serve.serve()


if __name__ == "__main__":
    main()
else:
    folder = Path(os.environ["BENCH_BARE"])
    app = create_app(folder)
    found = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    plain = {each["path"]: (each["content_type"], each["body"].encode()) for each in found}
