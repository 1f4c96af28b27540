"""buildx's `--progress rawjson` as log lines, and what a failure's text says. No I/O.

buildx prints JSON objects, over one line or several, and plain text after a failure; the reader is
lenient. https://github.com/moby/buildkit/blob/master/client/graph.go (SolveStatus)
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# The author's, whatever else the text says: a failing step, a base image that can't be had.
_THEIRS = re.compile(r"did not complete successfully|failed to resolve source metadata")
# Failures that are ours: the same build may succeed later. Everything else is the author's to mend.
_OURS = re.compile(
    r"failed to push|failed to do request|already exists|Unavailable: |code = Unavailable|"
    r"context deadline exceeded|"
    r"no such host|i/o timeout|TLS handshake|connection refused|"
    r"Cannot connect to the Docker daemon|401 Unauthorized|no space left on device",
)
_NOISE = re.compile(r"^(ERROR: )?(failed to solve: )?")
_SHOWN = 400


@dataclass
class Progress:
    """Feed it pieces of output; it gives log lines, and keeps the plain text for `error`."""

    steps: dict[str, int] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    plain: list[str] = field(default_factory=list)
    pending: str = ""

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

    def error(self) -> tuple[str, bool]:
        """Why the build failed, and whether that is ours rather than the author's."""
        said = next((line for line in reversed(self.plain) if line.startswith("ERROR: ")), "")
        text = _NOISE.sub("", said) or "\n".join(self.plain[-3:]) or "buildx failed without a word"
        return _clip(text), bool(_OURS.search(text)) and not _THEIRS.search(text)

    def _line(self, line: str) -> Iterator[str]:
        if line.strip():
            self.plain.append(line.rstrip())
            yield _clip(line.rstrip())

    def _status(self, status: dict[str, Any]) -> Iterator[str]:
        for vertex in status.get("vertexes") or ():
            yield from self._vertex(vertex)
        for log in status.get("logs") or ():
            number = self._number(log.get("vertex", ""))
            data = base64.b64decode(log.get("data") or "").decode(errors="replace")
            yield from (f"#{number} {_clip(line)}" for line in data.splitlines() if line.strip())

    def _vertex(self, vertex: dict[str, Any]) -> Iterator[str]:
        digest = str(vertex.get("digest"))
        new = digest not in self.steps
        number = self._number(digest)
        if new and vertex.get("name"):
            yield f"#{number} {_clip(str(vertex['name']))}"
        if vertex.get("completed") and digest not in self.finished:
            self.finished.add(digest)
            if vertex.get("error"):
                yield f"#{number} ERROR: {_clip(str(vertex['error']))}"
            else:
                yield f"#{number} {'CACHED' if vertex.get('cached') else 'DONE'}"

    def _number(self, digest: str) -> int:
        return self.steps.setdefault(digest, len(self.steps) + 1)


def _clip(text: str) -> str:
    """A long text's beginning and end: the command that failed, and how."""
    half = _SHOWN // 2
    return text if len(text) <= _SHOWN else f"{text[:half]} … {text[-half:]}"


def _is_json_so_far(text: str) -> bool:
    """Whether an object has begun that may yet be completed."""
    return bool(re.match(r'\{\s*("|\}|$)', text))
