"""buildx's `--progress rawjson` as log lines, steps, and what a failure's text says. No I/O.

buildx prints JSON objects, over one line or several, and plain text after a failure; the reader is
lenient. https://github.com/moby/buildkit/blob/master/client/graph.go (SolveStatus)
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from sdk.builder import Step
from sdk.errors import Failed, Misconfigured, Unavailable


@dataclass(frozen=True)
class Failure:
    """Why a build failed: `reason` is a word for programs, `code` says whose failure it is."""

    error: str
    reason: str
    code: str = Failed.code


# The first that fits. What fits none of them is the author's: a Dockerfile fails in more ways than a builder.
_REASONS = (
    # A step's own words come first: its command may well quote any of the others.
    (r"did not complete successfully: exit code: 137", "memory", Failed.code),
    (r"did not complete successfully: exit code: 153", "file_size", Failed.code),
    (r"did not complete successfully", "step", Failed.code),
    (r"denied by policy|is not allowed$", "policy", Failed.code),
    (
        r"dockerfile parse error|failed to parse|unknown (instruction|flag)|invalid reference|no build stage",
        "syntax",
        Failed.code,
    ),
    (r"failed to push.* 401 Unauthorized", "registry", Misconfigured.code),
    (r"failed to push", "registry", Unavailable.code),
    (r"failed to calculate checksum|failed to compute cache key|: not found$", "copy", Failed.code),
    (r"Cannot connect to the Docker daemon|Unavailable: |code = Unavailable", "buildkit", Unavailable.code),
    (r"error reading from server|context deadline exceeded|context canceled", "buildkit", Unavailable.code),
    (r"no space left on device", "disk", Unavailable.code),
    (
        r"401 Unauthorized|already exists|failed to do request|connection refused",
        "registry",
        Unavailable.code,
    ),
    (r"no such host|i/o timeout|TLS handshake|connection reset", "registry", Unavailable.code),
)
# A base that is not there is the author's, one whose registry has a bad moment nobody's.
_BASE = re.compile(r"failed to resolve source metadata")
_PASSING = re.compile(r"i/o timeout|TLS handshake|connection re(?:fused|set)|toomanyrequests|: 5\d\d |EOF$")
_DENIED = re.compile(r"denied by policy")
_HINTS = {
    "memory": ": it was killed, most likely for want of memory",
    "file_size": ": it wrote a file that is larger than is allowed here",
    "copy": ": it is not in the build context",
}
_NOISE = re.compile(
    r"^(ERROR: )?(failed to (build|solve): )*(failed to compute cache key: )?"
    r"(failed to calculate checksum of ref \S+: )?"
)
# What most programs write before their reason.
_ERROR = re.compile(r"(?i)err(or|!)|fatal")
_PLACE = re.compile(r"(?:\S*/)?(Dockerfile):([0-9]+)")
_SHOWN = 400
# Together they fit into a line of the answer, whatever their names are made of.
_STEPS = 100
_NAME_SHOWN = 90
_ERROR_SHOWN = 200


@dataclass
class Progress:
    """Feed it pieces of output; it gives log lines, and keeps the plain text for `failure`.

    Whole lines go through `redact`: of a line that was cut first, a part of a secret could stay.
    """

    redact: Callable[[str], str] = str
    numbers: dict[str, int] = field(default_factory=dict)
    finished: dict[str, Step] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    pending: str = ""
    errors: dict[str, str] = field(default_factory=dict)  # by the vertex: its last line that names one
    failed: str = ""  # the vertex that did

    def feed(self, text: str) -> Iterator[str]:
        """Log lines of the objects and lines that are complete."""
        self.pending += text
        decoder = json.JSONDecoder()
        while self.pending:
            self.pending = self.pending.lstrip("\r\n")
            if self.pending.startswith("{"):
                try:
                    status, end = decoder.raw_decode(self.pending)
                except ValueError:
                    if _is_json_so_far(self.pending):
                        return
                else:
                    self.pending = self.pending[end:]
                    yield from self._status(status)
                    continue
            line, newline, rest = self.pending.partition("\n")
            if not newline:
                return
            self.pending = rest
            yield from self._line(line)

    def close(self) -> Iterator[str]:
        """What is left when the output has ended."""
        left, self.pending = self.pending, ""
        for line in left.splitlines():
            yield from self._line(line)

    def steps(self) -> list[Step]:
        """The steps that are done, in the order of their numbers; the first hundred."""
        done = sorted(self.finished, key=lambda digest: self.numbers[digest])
        return [self.finished[digest] for digest in done[:_STEPS]]

    def failure(self) -> Failure:
        """Why the build failed, where in the Dockerfile, in the step's own words, and whose failure it is."""
        said = next((line for line in reversed(self.plain) if line.startswith("ERROR: ")), "")
        reason, code = _reason(said or "\n".join(self.plain[-3:]))
        text = _NOISE.sub("", said) or "\n".join(self.plain[-3:]) or "buildx failed without a word"
        place = next((found for line in self.plain if (found := _PLACE.fullmatch(line.strip()))), None)
        where = f"{place[1]} line {place[2]}: " if place and code == Failed.code else ""
        where = "" if "on line" in text else where
        text = f"{where}{_clip(text)}{_HINTS.get(reason, '')}"
        if reason == "step" and (own := self.errors.get(self.failed)):
            text = f"{own} ({text})"
        return Failure(text, reason, code)

    def _line(self, line: str) -> Iterator[str]:
        if line.strip():
            self.plain.append(self.redact(line.rstrip()))
            yield _clip(self.plain[-1])

    def _status(self, status: dict[str, Any]) -> Iterator[str]:
        for vertex in status.get("vertexes") or ():
            yield from self._vertex(vertex)
        for log in status.get("logs") or ():
            number = self._number(log.get("vertex", ""))
            data = base64.b64decode(log.get("data") or "").decode(errors="replace")
            for line in filter(str.strip, data.splitlines()):
                shown = _clip(self.redact(line))
                if _ERROR.search(shown):
                    self.errors[str(log.get("vertex", ""))] = _clip(shown.strip(), _ERROR_SHOWN)
                yield f"#{number} {shown}"

    def _vertex(self, vertex: dict[str, Any]) -> Iterator[str]:
        digest = str(vertex.get("digest"))
        new = digest not in self.numbers
        number, name = self._number(digest), self.redact(str(vertex.get("name") or ""))
        if new and name:
            yield f"#{number} {_clip(name)}"
        if vertex.get("completed") and digest not in self.finished:
            seconds, cached = _seconds(vertex), bool(vertex.get("cached"))
            shown = "".join(mark if mark.isprintable() else " " for mark in _clip(name, _NAME_SHOWN))
            self.finished[digest] = Step(shown, seconds, cached)
            if vertex.get("error"):
                self.failed = digest
                yield f"#{number} ERROR: {_clip(self.redact(str(vertex['error'])))}"
            else:
                yield f"#{number} CACHED" if cached else f"#{number} DONE {seconds:.1f}s"

    def _number(self, digest: str) -> int:
        return self.numbers.setdefault(digest, len(self.numbers) + 1)


def _reason(text: str) -> tuple[str, str]:
    if _BASE.search(text) and not _DENIED.search(text):
        return "base", Unavailable.code if _PASSING.search(text) else Failed.code
    fits = ((reason, code) for pattern, reason, code in _REASONS if re.search(pattern, text))
    return next(fits, ("build", Failed.code))


def _seconds(vertex: dict[str, Any]) -> float:
    """From started to completed."""
    try:
        return max(0.0, round(_time(str(vertex["completed"])) - _time(str(vertex["started"])), 3))
    except (KeyError, ValueError, OverflowError):
        return 0.0


def _time(text: str) -> float:
    """RFC 3339 as Go writes it: in UTC, with up to nine digits behind the point."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp() + float(
        f"0.{fraction or 0}"
    )


def _clip(text: str, shown: int = _SHOWN) -> str:
    """A long text's beginning and end: the command that failed, and how."""
    half = shown // 2
    return text if len(text) <= shown else f"{text[:half]} … {text[-half:]}"


def _is_json_so_far(text: str) -> bool:
    """Whether an object has begun that may yet be completed."""
    return bool(re.match(r'\{\s*("|\}|$)', text))
