"""What faas-cli makes of a remote builder's answer: a model of it, which the recorded replies hold to it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

LONGEST_LINE = 64 * 1024


class _Line(msgspec.Struct):
    log: list[str] | None = None
    image: str = ""
    status: str = ""
    error: str = ""


@dataclass(frozen=True)
class Verdict:
    """Its exit code, and whether it says that the image is built and pushed."""

    exit_code: int
    is_success: bool = False
    error: str = ""


def verdict(status: int, body: bytes) -> Verdict:
    """A stream that just ends, or has a line that is too long, is no error to it: only exit code 0."""
    if status not in (200, 202):
        return Verdict(1, error=f"builder responded with status code {status}")
    for text in body.decode().removesuffix("\n").split("\n") if body else ():
        if len(text) > LONGEST_LINE:
            break
        try:
            line = msgspec.json.decode(text, type=_Line)
        except msgspec.MsgspecError as error:
            return Verdict(1, error=str(error))
        if line.status == "failed":
            return Verdict(1, error=line.error)
        if line.status == "success":
            return Verdict(0, is_success=True)
    return Verdict(0)
