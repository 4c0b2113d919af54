"""As much of the Hugging Face hub as reading a data set needs, on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.data.site import answer
from tests.http_server import serve

COMMIT = "a" * 40
Files = dict[str, bytes]


@contextmanager
def hub(repositories: dict[str, Files]) -> Iterator[str]:
    """Serve data sets, each by `org/name` with its files, and give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            if parts[:2] == ["api", "datasets"]:
                _about(self, repositories.get("/".join(parts[2:4])), "/".join(parts[2:4]), parts[4:])
            else:  # /datasets/<org>/<name>/resolve/<commit>/<file>
                _file(self, repositories.get("/".join(parts[1:3]), {}).get("/".join(parts[5:])))

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with serve(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def _about(handler: BaseHTTPRequestHandler, files: Files | None, name: str, rest: list[str]) -> None:
    if files is None:
        answer(404, b"{}", X_Error_Code="RepoNotFound")(handler)
    elif rest[:1] == ["tree"]:
        listed = [{"type": "file", "path": path, "size": len(data), "oid": _oid(data)} for path, data in files.items()]
        _json(handler, listed)
    else:
        siblings = [{"rfilename": path} for path in files]
        _json(handler, {"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})


def _file(handler: BaseHTTPRequestHandler, data: bytes | None) -> None:
    if data is None:
        answer(404, b"", X_Error_Code="EntryNotFound")(handler)
        return
    headers = {"ETag": f'"{_oid(data)}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
    if wanted := handler.headers.get("range"):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last or len(data)), len(data) - 1)
        part = data[int(first) : end + 1]
        answer(206, part, Content_Range=f"bytes {first}-{end}/{len(data)}", **headers)(handler)
    else:
        answer(200, data, **headers)(handler)


def _json(handler: BaseHTTPRequestHandler, value: object) -> None:
    answer(200, json.dumps(value).encode(), Content_Type="application/json")(handler)


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
