"""The chat page: a fixed set of packaged files, sent with headers that let nothing else run.

Entry point: `add_page`, which `app.create_app` calls. The files are in page/ beside this module, read once.
What a model writes is shown by page/markdown.js as text; the policy below is the second wall behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI, Request, Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SCRIPT = "text/javascript; charset=utf-8"
# path: (file of page/, media type)
ROUTES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/text.css": ("text.css", "text/css; charset=utf-8"),
    "/page/llama.svg": ("llama.svg", "image/svg+xml"),
    "/page/theme.js": ("theme.js", SCRIPT),
    "/page/chat.js": ("chat.js", SCRIPT),
    "/page/inline.js": ("inline.js", SCRIPT),
    "/page/markdown.js": ("markdown.js", SCRIPT),
    "/page/message.js": ("message.js", SCRIPT),
    "/page/settings.js": ("settings.js", SCRIPT),
    "/page/store.js": ("store.js", SCRIPT),
    "/page/stream.js": ("stream.js", SCRIPT),
}
PATHS = frozenset(ROUTES)
"""What is answered without a key: the page has to be there to ask for one."""


def add_page(app: FastAPI) -> None:
    """Serve the chat page at / and its files under /page/."""
    folder = files("criadero.serve") / "page"
    for path, (name, kind) in ROUTES.items():
        answer = _file((folder / name).read_bytes(), kind)
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",  # kept, but asked for by its ETag: a new version is seen at once
        "ETag": tag,
    }

    async def answer(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if tag in (one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return answer
