"""What a Dockerfile may be made from. Pure.

The Dockerfile is read with BuildKit's own parser and held against the operator's list before anything runs,
and BuildKit gets the same list as a source policy, which also holds for what no reading finds.
https://docs.docker.com/reference/dockerfile/ and
https://github.com/moby/buildkit/blob/master/sourcepolicy/pb/policy.proto
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dockerfile
import msgspec

from sdk.errors import Failed, Malformed, Misconfigured, Refused
from sdk.registry import Reference

# The frontend that Docker publishes; any other may be a program that does as it likes.
OFFICIAL_FRONTEND = "docker.io/docker/dockerfile"
SCRATCH = "scratch"
_BYTES = 1024 * 1024
_IMAGE = re.compile(r"[a-z0-9.-]+(?::[0-9]+)?/[A-Za-z0-9._/:@-]*\*?")
_URL = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]+)?/[!-)+-~]*\*?")
_FRONTEND = re.compile(r"\s*(?:#|//)\s*syntax\s*=\s*([^ ]*)", re.IGNORECASE)
# Older ones know nothing of the limits and fences that of-builder sets; a digest may well be an old one's.
_OFFICIAL_TAG = re.compile(r"(?:latest|labs|1(?:\.(?:[7-9]|[1-9][0-9])(?:\.[0-9]+)?)?(?:-labs)?)")
_COMMENT = re.compile(r"\s*(?:#|//|$)")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])([^${}]*))?\})")
# What BuildKit or of-builder sets, which a Dockerfile may declare without a value.
_PRESET = re.compile(r"(?i:.*_proxy|BUILDKIT_.*|SOURCE_DATE_EPOCH)|(?:BUILD|TARGET)[A-Z]+")
# Others are written differently by the time that a Dockerfile sees them, as linux/arm64/v8.
_PLAIN_PLATFORMS = ("amd64", "arm64", "arm/v6", "arm/v7", "386", "ppc64le", "s390x", "riscv64")
_MARKS = "$\\'\"`"
_HARMLESS_FLAGS = ("--network=none", "--network=default", "--security=sandbox")


@dataclass(frozen=True)
class Allowed:
    """The operator's list, and the path in our own registry that is nobody's base."""

    images: tuple[str, ...]
    urls: tuple[str, ...]
    private: str = ""

    @classmethod
    def of(cls, entries: Sequence[str], own: Reference) -> Allowed:
        """`Misconfigured` for an entry whose host is not plain: nothing may stand for our own registry."""
        for entry in entries:
            if not (_URL if "://" in entry else _IMAGE).fullmatch(entry):
                raise Misconfigured(
                    f"setting allowed_sources: {entry!r} is neither an image as docker.io/library/python:*, "
                    "with its host and one * at the end, nor a URL as https://example.com/files/*"
                )
        images = tuple(entry for entry in entries if "://" not in entry)
        urls = tuple(entry for entry in entries if "://" in entry)
        return cls(images, urls, f"{own.host}/{own.path.partition('/')[0]}")

    def has_image(self, image: Reference) -> bool:
        own = image.repository == self.private or image.repository.startswith(f"{self.private}/")
        return not own and any(_matches(str(image), entry) for entry in self.images)

    def has_url(self, url: str) -> bool:
        return ".." not in url and any(_matches(url, entry) for entry in self.urls)

    def policy(self) -> bytes:
        """BuildKit's source policy: of several rules that fit, the last one decides."""
        # The name itself, and with the digest that BuildKit adds to it.
        images = [form for entry in self.images for form in (entry, f"{entry.rstrip('*')}@*")]
        rules = [
            ("DENY", "*"),
            ("ALLOW", "local://*"),
            *(("ALLOW", f"docker-image://{entry}") for entry in images),
            *(("ALLOW", entry) for entry in self.urls),
            *(("DENY", f"docker-image://{self.private}{end}") for end in ("/*", ":*", "@*")),
        ]
        rows = [{"action": action, "selector": {"identifier": what}} for action, what in rules]
        return msgspec.json.encode({"version": 1, "rules": rows})


def bases(text: bytes, build_args: Mapping[str, str], platforms: Sequence[str], allowed: Allowed) -> set[str]:
    """The images that the stages begin with, as the Dockerfile names them.

    Raises `Refused` with the line for what the operator does not allow, `Failed` for what is no Dockerfile.
    """
    commands = _parse(text)
    found = set[str]()
    for platform in platforms:
        found |= _Reader(_platform_arguments(platform), build_args, allowed).read(commands)
    return found


def _parse(text: bytes) -> Sequence[dockerfile.Command]:
    if len(text) > _BYTES:
        raise Refused(f"the Dockerfile is larger than {_BYTES // 1024} KiB")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failed("the Dockerfile is not UTF-8") from None
    if "\0" in decoded:
        raise Refused("the Dockerfile has a NUL")  # the parser would read no further, and BuildKit would
    _check_frontend(decoded)
    try:
        commands: Sequence[dockerfile.Command] = dockerfile.parse_string(decoded)
    except (dockerfile.GoParseError, ValueError) as error:
        raise Failed(f"the Dockerfile can't be read: {error}") from None
    return commands


def _check_frontend(text: str) -> None:
    """`# syntax=` names an image that would read the Dockerfile in place of BuildKit's own reader."""
    for number, line in enumerate(text.split("\n"), 1):  # as BuildKit splits: other separators are text
        if line.lstrip().startswith("{"):
            raise Refused(f"line {number}: a Dockerfile does not begin with JSON here")
        if not _COMMENT.match(line):
            return
        if (named := _FRONTEND.match(line)) and not _is_official(named[1].strip()):
            raise Refused(
                f"line {number}: # syntax={named[1]} is not allowed here: leave it out, or take "
                "docker/dockerfile:1"
            )


def _is_official(image: str) -> bool:
    try:
        named = Reference.parse(image)
    except Malformed:
        return False
    return named.repository == OFFICIAL_FRONTEND and bool(_OFFICIAL_TAG.fullmatch(named.tag))


class _Reader:
    """Walks the commands once, for one platform."""

    def __init__(self, preset: Mapping[str, str], given: Mapping[str, str], allowed: Allowed) -> None:
        self.arguments = {name: given.get(name, value) for name, value in preset.items()}
        self.given = given
        self.unset: set[str] = set()
        self.allowed = allowed
        self.stages: list[str] = []
        self.bases: set[str] = set()

    def read(self, commands: Sequence[dockerfile.Command]) -> set[str]:
        for command in commands:
            try:
                self._command(command)
            except (Refused, Malformed) as error:
                raise Refused(f"Dockerfile line {command.start_line}: {error.message}") from None
        return self.bases

    def _command(self, command: dockerfile.Command) -> None:
        name = (command.cmd or "").upper()
        if not name.isascii():
            raise Refused(f"{name[:20]!r} is no instruction")  # nor as BuildKit lowers some letters
        if name == "ARG" and not self.stages:
            self._argument(command.value)
        elif name == "FROM":
            self._from(command.value)
        elif name in ("COPY", "ADD"):
            self._copy(command)
        elif name == "RUN":
            self._run(command.flags)
        elif name == "ONBUILD":
            raise Refused("ONBUILD is not allowed here: nothing is built from a function's image")

    def _argument(self, words: Sequence[str]) -> None:
        for word in words:
            name, equals, default = word.partition("=")
            if name in self.given:
                self.arguments[name] = self.given[name]
            elif equals:
                self.arguments[name] = self._expanded(_unquoted(default))
            elif _PRESET.fullmatch(name):
                self.arguments.pop(name, None)  # BuildKit's versions differ in what it is now
            elif name not in self.arguments:
                self.unset.add(name)

    def _from(self, words: Sequence[str]) -> None:
        if not words:
            return  # BuildKit says what is missing
        image = self._expanded(words[0])
        if image != SCRATCH and image.lower() not in self.stages:
            self._check_image(image)
            self.bases.add(image)
        is_named = len(words) == 3 and words[1].upper() == "AS"
        self.stages.append(words[2].lower() if is_named else "")

    def _copy(self, command: dockerfile.Command) -> None:
        for flag in command.flags:
            if flag.startswith("--from="):
                self._check_source(flag.removeprefix("--from="))
        if command.cmd.upper() == "ADD":
            for source in command.value[:-1]:
                if "://" in source and not self.allowed.has_url(source):
                    raise Refused(f"ADD {source} is not allowed here: RUN a program that downloads it")

    def _run(self, flags: Sequence[str]) -> None:
        for flag in flags:
            if flag.startswith("--mount="):
                self._mount(flag.removeprefix("--mount="))
            elif flag not in _HARMLESS_FLAGS:
                raise Refused(f"RUN {flag} is not allowed here")

    def _mount(self, text: str) -> None:
        # As BuildKit reads it: fields as in CSV, keys in any case.
        try:
            fields = next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            raise Refused(f"--mount={text[:100]} can't be read: {error}") from None
        options = dict(_option(field) for field in fields)
        for key in ("type", "from", "id"):
            if any(mark in options.get(key, "") for mark in _MARKS):
                raise Refused(f"--mount: write {key} without variables and quotes")
        if options.get("type", "bind").lower() == "cache" and "id" in options:
            raise Refused("--mount=type=cache: leave id out; caches are by path, and each owner has its own")
        if options.get("from"):
            self._check_source(options["from"])

    def _check_source(self, name: str) -> None:
        """A stage, by name or number, or an image."""
        if "$" in name:
            raise Refused(f"from={name}: write it without variables")
        if not name.isdigit() and name.lower() not in self.stages and name != SCRATCH:
            self._check_image(name)

    def _check_image(self, name: str) -> None:
        image = Reference.parse(name.partition("@")[0])
        if not self.allowed.has_image(image):
            raise Refused(
                f"the image {name} is not allowed here (the operator's setting allowed_sources has "
                f"{', '.join(self.allowed.images) or 'none'})"
            )

    def _expanded(self, word: str) -> str:
        """The word with its variables; what BuildKit knows beyond this is refused rather than guessed."""
        plain = _VARIABLE.sub(self._value, word)
        if any(mark in _VARIABLE.sub("", word) for mark in _MARKS):
            raise Refused(f"{word!r} can't be told: use ${{NAME}}, ${{NAME:-default}} or the plain name")
        return plain

    def _value(self, found: re.Match[str]) -> str:
        name, form = found[1] or found[2], found[3] or ""
        value = self.arguments.get(name, "" if name in self.unset and form in ("", ":-", ":+") else None)
        if value is None:
            raise Refused(
                f"what {name} is can't be told: declare it as ARG {name}=VALUE before the first FROM"
            )
        there = bool(value) if form.startswith(":") else True
        if form.endswith("-"):
            return value if there else found[4]
        if form.endswith("+"):
            return found[4] if there else ""
        return value


def _option(field: str) -> tuple[str, str]:
    key, _, value = field.partition("=")
    return key.strip().lower(), value.strip()


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] in "\"'" and text[0] == text[-1]
    return text[1:-1] if is_quoted else text


def _platform_arguments(platform: str) -> dict[str, str]:
    """https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope"""
    system, architecture, variant = (*platform.split("/"), "", "")[:3]
    if platform.partition("/")[2] not in _PLAIN_PLATFORMS:
        return {}
    rows = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
    return {f"TARGET{name}": value for name, value in rows.items()}


def _matches(text: str, entry: str) -> bool:
    return text.startswith(entry[:-1]) if entry.endswith("*") else text == entry
