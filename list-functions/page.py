"""The pages: HTML without a line of JavaScript, and headers by which a browser runs none either."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import live
from .asked import Asked, wants_page
from .cluster import Build, Cluster
from .sdk.builder import Log
from .sdk.edge import Answer, Event
from .sdk.errors import CloudError, Unavailable
from .sdk.links import EVERYBODY, Link
from .timelines import Push

FUNCTIONS = 100
LOOK_AGAIN_SECONDS = 3
# What of a log is shown: its end.
LOG_BYTES = 256 * 1024

_HERE = Path(__file__).parent
_STYLE = (_HERE / "style.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PRIVATE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
HEADERS = {
    **PRIVATE,
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
}
# A terminal's colours, all else that is no text, and what writes a line backwards.
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;:?<=>]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TITLES = {401: "This link does not open anything", 404: "There is nothing here", 503: "One moment"}
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def overview(asked: Asked, link: Link, cluster: Cluster, pushes: Sequence[Push]) -> Answer:
    settings, functions = cluster.settings, cluster.live()
    shown, rest = pushes[: settings.pushes_limit], pushes[settings.pushes_limit :]
    listed = functions[asked.skip :][:FUNCTIONS]
    return _answer(
        "overview.html",
        link,
        asked,
        title="Everybody" if link.user == EVERYBODY else link.user,
        functions=[(each, live.url(each, settings)) for each in listed],
        functions_count=len(functions),
        skipped=asked.skip + len(listed) if asked.skip + len(listed) < len(functions) else 0,
        pushes=shown,
        problems=cluster.problems(),
        older=shown[-1].begun if rest and shown else 0,
        repo_urls={each.path: each.repo_url for each in functions},
        is_everybody=link.user == EVERYBODY,
        looks_again=any(push.is_open for push in shown),
    )


def log(asked: Asked, link: Link, build: Build, found: Log | None) -> Answer:
    text = found.text if found else "".join(f"{line}\n" for line in build.lines)
    goes_on = build.is_building or bool(found and not found.is_whole)
    shown = as_text(text)
    return _answer(
        "log.html",
        link,
        asked,
        title=build.title,
        build=build,
        is_kept=found is not None,
        is_cut=len(shown) > LOG_BYTES,
        text=shown[-LOG_BYTES:],
        looks_again=goes_on,
    )


def refusal(event: Event, error: CloudError) -> Answer | None:
    """The page of an error, for whoever wants pages."""
    if not wants_page(event):
        return None
    template = _PAGES.get_template("error.html")
    body = template.render(
        title=_TITLES.get(error.status, "This did not work"),
        message=error.message,
        looks_again=isinstance(error, Unavailable),
        again_seconds=LOOK_AGAIN_SECONDS,
        style=_STYLE,
    )
    return {"statusCode": error.status, "body": body, "headers": HEADERS}


def as_text(log: str) -> str:
    """A log without what is no text: escape codes, control characters, marks that turn a line round."""
    lines = _ESCAPES.sub("", log).replace("\r\n", "\n").split("\n")
    # Of a line that was written over, as a progress bar, the last state.
    return "\n".join(_UNSEEN.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines)


def clock(seconds: float) -> str:
    return f"{_utc(seconds):%H:%M:%S}"


def moment(seconds: float) -> str:
    return f"{_utc(seconds):%Y-%m-%dT%H:%M:%SZ}"


def day(seconds: float) -> str:
    return f"{_utc(seconds):%-d %B %Y, %H:%M} UTC"


def ago(seconds: float) -> str:
    passed = max(0, time.time() - seconds)
    for size, unit in _UNITS:
        if passed >= size:
            count = int(passed // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def lasted(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


_PAGES = Environment(
    loader=FileSystemLoader(_HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters |= {
    "ago": ago,
    "clock": clock,
    "day": day,
    "lasted": lasted,
    "moment": moment,
    "text": as_text,
}


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _answer(name: str, link: Link, asked: Asked, *, looks_again: bool, **values: object) -> Answer:
    body = _PAGES.get_template(name).render(
        **values,
        asked=asked,
        until=link.until,
        style=_STYLE,
        looks_again=looks_again and not asked.still,
        may_look_again=looks_again,
        again_seconds=LOOK_AGAIN_SECONDS,
    )
    return {"statusCode": 200, "body": body, "headers": HEADERS}
