"""`${NAME}` in stack.yml, replaced in the raw text before it is read as YAML.

The rules are those that faas-cli has (measured, not bash's): `${V} ${V:-d} ${V:=d} ${V=d} ${V:?d}
${V:+d} ${V^} ${V^^} ${V,} ${V,,} ${V:1:2} ${V/a/b} ${V//a/b} ${V/#a/b} ${V/%a/b} ${V#p} ${V##p} ${V%p}
${V%%p} ${#V}`, nested where a word is taken; an unset name is empty; `$V` stays; `$$` is `$`; `\\\\`
and `\\/` lose their backslash. In the cloud the environment is empty, so that only defaults apply: a
repository never reads the platform's own variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from .errors import Malformed

_DEPTH = 50
_LITERAL = re.compile(r"(?:\$\$|\\[\\/]|(?!\$\{).)+", re.DOTALL)
_ESCAPE = re.compile(r"\$(?=\$)|\\(?=[\\/])")
_LENGTH = re.compile(r"#(\w+)\}")
_NAME = re.compile(r"\w+")
_CASING = re.compile(r"[,^]{1,2}")
_REPLACING = re.compile(r"/[/#%]?")
_TRIMMING = re.compile(r"##?|%%?")
_WORD = re.compile(r"(?:(?!\$\{)[^}])+")
_OFFSET = re.compile(r"(?:(?!\$\{)[^:}])+")
_PATTERN = re.compile(r"(?:\$\$|\\[\\/]|(?!\$\{)[^/])+", re.DOTALL)
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_REPLACEMENT = re.compile(r"(?:\$\$|\\[\\/]|(?!\$\{)[^}])+", re.DOTALL)


def substitute(text: str, environment: Mapping[str, str]) -> str:
    """Replace every expression in `text`; `Malformed` says what can't be read, and in which line."""
    reader = _Reader(text, environment)
    try:
        return reader.whole()
    except ValueError as error:
        line = text.count("\n", 0, reader.at) + 1
        raise Malformed(f"line {line}: substitution: {error}") from None


class _Reader:
    """Reads `text` from left to right; `at` is the next character."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self.text = text
        self.environment = environment
        self.at = 0
        self.depth = 0

    def whole(self) -> str:
        parts: list[str] = []
        while self.at < len(self.text):
            if self.took("${"):
                parts.append(self.expression())
            else:
                parts.append(_ESCAPE.sub("", self.expect(_LITERAL, "bad substitution")))
        return "".join(parts)

    def expression(self) -> str:
        """The value of what follows `${`, past its `}`."""
        self.depth += 1
        if self.depth > _DEPTH:
            raise ValueError(f"more than {_DEPTH} levels")
        if self.peek("#"):
            value = self.length()
        else:
            value = self.operation(self.expect(_NAME, "unable to parse variable name"))
        self.depth -= 1
        return value

    def length(self) -> str:
        match = _LENGTH.match(self.text, self.at)
        if not match:
            raise ValueError("bad substitution")
        self.at = match.end()
        return str(len(self.value(match[1]).encode()))

    def operation(self, name: str) -> str:
        value = self.value(name)
        for mark, operation in self._operations:
            if self.peek(mark):
                return operation(self, value)
        self.close("missing closing brace")
        return value

    def default(self, value: str) -> str:
        self.at += 1 if self.peek("=") else 2
        words: list[str] = []
        while not self.peek("}"):
            words.append(self.word(_WORD))
        self.close()
        return value or "".join(words)

    def substring(self, value: str) -> str:
        self.at += 1
        offset, length = self.word(_OFFSET), None
        if self.peek(":"):
            while self.took(":"):
                pass
            length = self.word(_WORD)
        self.close()
        return _substring(value, offset, length)

    def casing(self, value: str) -> str:
        change = _CASINGS.get(self.expect(_CASING, "bad substitution"), str)
        self.close()
        return change(value)

    def replacing(self, value: str) -> str:
        mark = self.expect(_REPLACING, "bad substitution")
        old, new = self.word(_PATTERN), None
        if not self.peek("/"):
            raise ValueError("bad substitution")
        while self.took("/"):
            pass
        if not self.peek("}"):
            new = self.word(_REPLACEMENT)
        self.close()
        return _replaced(value, mark, old, new)

    def trimming(self, value: str) -> str:
        mark = self.expect(_TRIMMING, "bad substitution")
        pattern = self.word(_WORD)
        self.close()
        return _trimmed(value, mark, pattern)

    def word(self, literal: re.Pattern[str]) -> str:
        """An operand: an expression, or text as far as `literal` goes."""
        if self.took("${"):
            return self.expression()
        text = self.expect(literal, "unable to parse substitution within function")
        return _ESCAPE.sub("", text) if literal in (_PATTERN, _REPLACEMENT) else text

    def value(self, name: str) -> str:
        return self.environment.get(name, "")

    def peek(self, mark: str) -> bool:
        return self.text.startswith(tuple(mark.split()), self.at)

    def took(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def expect(self, pattern: re.Pattern[str], complaint: str) -> str:
        match = pattern.match(self.text, self.at)
        if not match:
            raise ValueError(complaint)
        self.at = match.end()
        return match[0]

    def close(self, complaint: str = "bad substitution") -> None:
        if not self.took("}"):
            raise ValueError(complaint)

    # The first mark that fits decides, so `:-` stands before `:`.
    _operations: tuple[tuple[str, Callable[[_Reader, str], str]], ...] = (
        (":= :- :? :+ =", default),
        (":", substring),
        (", ^", casing),
        ("/", replacing),
        ("# %", trimming),
    )


_CASINGS: Mapping[str, Callable[[str], str]] = {
    ",": lambda value: value[:1].lower() + value[1:],
    ",,": str.lower,
    "^": lambda value: value[:1].upper() + value[1:],
    "^^": str.upper,
}


def _substring(value: str, offset: str, length: str | None) -> str:
    """Counted in bytes; what is no number leaves the value whole."""
    if not _INTEGER.fullmatch(offset) or (length is not None and not _INTEGER.fullmatch(length)):
        return value
    raw = value.encode()
    start, size = int(offset), len(raw) if length is None else int(length)
    if size < 0:
        raise ValueError("a negative length")
    if start < 0:
        start = max(len(raw) + start, 0)
    return raw[start : start + size].decode()


def _replaced(value: str, mark: str, old: str, new: str | None) -> str:
    if mark == "//":
        return value.replace(old, new or "")
    if mark == "/":
        return value.replace(old, new or "", 1)
    if new is None:
        return value
    if mark == "/#":
        return new + value.removeprefix(old) if value.startswith(old) else value
    return value.removesuffix(old) + new if value.endswith(old) else value


def _trimmed(value: str, mark: str, pattern: str) -> str:
    suffix = mark.startswith("%")
    if suffix:
        value, pattern = value[::-1], pattern[::-1]
    ends = range(1, len(value) + 1) if len(mark) == 1 else range(len(value), 0, -1)
    matcher = _glob(pattern)
    cut = next((end for end in ends if matcher and matcher.fullmatch(value, 0, end)), 0)
    return value[cut:][::-1] if suffix else value[cut:]


def _glob(pattern: str) -> re.Pattern[str] | None:
    """A shell pattern as a regular expression: `*` takes any text, slashes too; None if it is none."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            # Stars in a row are one, so that the match stays quick.
            parts.append(".*" if not parts or parts[-1] != ".*" else "")
        elif character == "?":
            parts.append(".")
        elif character == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                return None
            parts.append(f"[{pattern[at:end]}]")
            at = end + 1
        else:
            parts.append(re.escape(character))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:
        return None
