"""Commands as the docs show them: what of them can be held against what is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^ *```(?P<kind>[^\n`]*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_HEREDOC = re.compile(r"<<-?'?(\w+)'?")
_PROMPT = re.compile(r"^ *[$#] (?=\S)")
# A line of a block without prompts, and what it says of the command after two blanks.
_PLAIN = re.compile(
    r"^ *((?:make|python|pytest|docker|ssh|\.venv/bin/\w+|\.ci/\w+) (?:\S| (?! ))*)", re.MULTILINE
)
_ENDS = re.compile(r"&&|\|\||[;|&()]+|>+")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Kind and text of each fenced block."""
    for found in BLOCK.finditer(page.read_text()):
        yield found["kind"].strip(), found["text"]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in a page's blocks: all of `sh`, what follows a prompt in others."""
    for kind, text in blocks(page):
        if kind.partition(" ")[0] == "sh":
            lines = _logical(text)
        elif not kind:
            found = [_PROMPT.sub("", line) for line in _logical(text) if _PROMPT.match(line)]
            lines = iter(found or _PLAIN.findall(text))
        else:
            continue
        for line in lines:
            yield from split(line)


def inline(page: Path) -> Iterator[list[str]]:
    """What stands between single backticks, outside of blocks."""
    for text in _INLINE.findall(BLOCK.sub("", page.read_text())):
        yield from split(" ".join(text.split()))


def split(line: str) -> Iterator[list[str]]:
    """The simple commands of a line of shell, with what is substituted in them."""
    for inner in re.findall(r"\$\(([^()]+)\)", line):
        yield from split(inner)
    try:
        lexer = shlex.shlex(
            re.sub(r"\$\([^()]+\)", "SUBSTITUTED", line), posix=True, punctuation_chars=";&|()<>"
        )
        lexer.commenters = ""
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:  # prose, with an apostrophe
        return
    found: list[str] = []
    for word in words:
        if word == "#":
            break
        if _ENDS.fullmatch(word):
            if found:
                yield found
            found = []
        else:
            found.append(word)
    if found:
        yield found


def _logical(text: str) -> Iterator[str]:
    """Lines with their continuations, without the texts of heredocs."""
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        yield line
        if heredoc := _HEREDOC.search(line):
            for inside in lines:
                if inside.strip() == heredoc[1]:
                    break


def local_arguments(words: Sequence[str]) -> Sequence[str] | None:
    """What follows `python -m local`, whichever Python; None for another command."""
    for number in range(len(words) - 2):
        if words[number].rpartition("/")[2] in ("python", "python3") and words[number + 1 : number + 3] == [
            "-m",
            "local",
        ]:
            return words[number + 3 :]
    return None


def problem_with(arguments: Sequence[str]) -> str:
    """Why `python -m local ARGUMENT…` would not be understood; empty if it would."""
    from local.cli import main

    command: click.Command = main
    rest = list(arguments)
    while isinstance(command, click.Group):
        if not rest:
            return ""
        name, *rest = rest
        if name in ("--help", "-h", "--version"):
            return ""
        found = command.commands.get(name)
        if not found:
            return f"python -m local has no {name}"
        command = found
    context = click.Context(command)
    try:
        _, left, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return f"python -m local {' '.join(arguments)}: {error.format_message()}"
    return f"python -m local {' '.join(arguments)}: too much: {' '.join(left)}" if left else ""


@cache
def targets() -> frozenset[str]:
    """What the Makefile makes."""
    return frozenset(
        re.findall(r"^([a-z.][\w./-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    ) - {".PHONY"}
