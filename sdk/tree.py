"""The files at the top of a checked-out repository that a push reads: stack.yml and secrets.yml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import secrets_file, stack
from .errors import Failed, Malformed, TooLarge
from .stack import Stack


def read_stack(folder: Path, functions_limit: int) -> Stack:
    """The stack file at the top of the tree; `Failed` tells the author what to mend."""
    file = stack.find(folder)
    if not file:
        raise Failed("there is no stack.yml at the top of the repository: nothing changes")
    if file.stat().st_size > stack.SIZE_LIMIT:
        raise TooLarge(f"{file.name} has {file.stat().st_size} bytes, {stack.SIZE_LIMIT} are allowed")
    try:
        found = stack.parse(file.read_bytes())
    except Malformed as error:
        told = "\n".join(f"{file.name}: {line}" for line in error.message.splitlines())
        raise Failed(told) from None
    if not found.functions:
        raise Failed(f"{file.name} has no functions: nothing changes")
    if len(found.functions) > functions_limit:
        raise TooLarge(
            f"{file.name} has {len(found.functions)} functions, {functions_limit} are allowed "
            "(setting functions_limit)"
        )
    return found


def read_sealed(folder: Path, found: Stack) -> Mapping[str, str]:
    """What is in secrets.yml at the top of the tree, if a function has secrets, and if the file is ours."""
    file = folder / secrets_file.NAME
    if file.is_symlink() or not file.is_file() or not any(each.secrets for each in found.functions):
        return {}
    if file.stat().st_size > secrets_file.FILE_BYTES:
        raise TooLarge(f"{file.name} has {file.stat().st_size} bytes, {secrets_file.FILE_BYTES} are allowed")
    try:
        return secrets_file.parse(file.read_bytes()) or {}
    except Malformed as error:
        raise Failed(error.message) from None
