"""One form for the many ways of writing an address, so that links can be matched with pages.

Entry point: `normalise`. What servers commonly ignore goes: the scheme, `www.`, default ports, the fragment,
a trailing slash, tracking parameters. A link to a web archive's copy stands for the page that was copied.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

MAX_URL_CHARACTERS = 4096
_ARCHIVED = re.compile(
    r"^https?://(?:web\.archive\.org/web|archive\.(?:is|ph|today|md|li))/\d{4,14}(?:[a-z]{2}_)?/"
    r"(?P<page>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_SCHEME = re.compile(r"^(?:https?:)?//", re.IGNORECASE)
_TRACKING = re.compile(r"^(?:utm_\w+|gclid|fbclid|mc_[ce]id|igshid|ref_src)(?:=|$)")
_DEFAULT_PORTS = (":80", ":443")
_SAFE = "/:@!$&'()*+,;=-._~"


def normalise(url: str) -> str | None:
    """Return the form in which two addresses of one page are equal, or None if it is no address of a page.

    Applying it to its own result, with a scheme before it, changes nothing.
    """
    url = url.strip()
    if len(url) > MAX_URL_CHARACTERS:
        return None
    archived = _ARCHIVED.match(url)
    if archived:
        url = archived["page"]
        url = url if _SCHEME.match(url) else f"//{url}"
    if not _SCHEME.match(url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    host = _host(parts.netloc)
    if "." not in host:
        return None
    path = _escaped(parts.path).rstrip("/")
    query = "&".join(p for p in parts.query.split("&") if p and not _TRACKING.match(p))
    return f"{host}{path}" + (f"?{_escaped(query)}" if query else "")


def host_of(normalised: str) -> str:
    """Return the host of a normalised address."""
    return re.split(r"[/?]", normalised, maxsplit=1)[0]


def _host(netloc: str) -> str:
    host = netloc.rpartition("@")[2].lower()
    for port in _DEFAULT_PORTS:
        host = host.removesuffix(port)
    host = host.rstrip(".").removeprefix("www.")
    try:
        return host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        return ""


def _escaped(text: str) -> str:
    """Write escapes in one way: unreserved characters plain, all others as %XX."""
    return quote(unquote(text, errors="surrogateescape"), safe=_SAFE + "?", errors="surrogateescape")
