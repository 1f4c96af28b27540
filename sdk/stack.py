"""stack.yml: text in, a frozen `Stack` out, or every problem of the file in one `Malformed`.

Decoding follows faas-cli (https://docs.openfaas.com/reference/yaml/): a scalar in a text field keeps
its source text (`1.50`, `yes`, `017`), null is empty, booleans take yes/no/on/off, duplicate keys and
wrong types are errors, anchors and `<<` work, only the first document counts, unknown keys are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from .errors import Malformed
from .ignored_keys import IgnoredKeys
from .substitution import substitute

FILE_NAMES = ("stack.yaml", "stack.yml")
SIZE_LIMIT = 256 * 1024
_ENTRIES = 200_000

# `faas` is what the first OpenFaaS Cloud's repositories said; `openfaas` is current.
PROVIDERS = ("openfaas", "faas")

_TRUE = frozenset("y yes on true".split())
_FALSE = frozenset("n no off false".split())
_MERGE = "tag:yaml.org,2002:merge"
_QUOTED = re.compile(r"'[^'<\n]{3,}'|\"[^\"<\n]{3,}\"")


@dataclass(frozen=True)
class Resources:
    """`limits` or `requests`: memory such as `128Mi`, CPU such as `100m`."""

    memory: str = ""
    cpu: str = ""


@dataclass(frozen=True)
class Function:
    """One function, its fields named as in stack.yml."""

    name: str
    lang: str = ""
    handler: str = ""
    image: str = ""
    fprocess: str = ""
    namespace: str = ""
    platforms: str = ""
    skip_build: bool = False
    readonly_root_filesystem: bool = False
    secrets: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    environment_file: tuple[str, ...] = ()
    build_options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    build_args: Mapping[str, str] = field(default_factory=dict)
    build_secrets: Mapping[str, str] = field(default_factory=dict)
    limits: Resources = Resources()
    requests: Resources = Resources()


@dataclass(frozen=True)
class Provider:
    name: str = ""
    gateway: str = ""


@dataclass(frozen=True)
class TemplateSource:
    name: str = ""
    source: str = ""


@dataclass(frozen=True)
class Configuration:
    templates: tuple[TemplateSource, ...] = ()
    copy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stack:
    """`ignored`: a line for each key that nothing reads, a typo perhaps."""

    version: str = ""
    provider: Provider = Provider()
    configuration: Configuration = Configuration()
    functions: tuple[Function, ...] = ()
    ignored: tuple[str, ...] = field(default=(), compare=False)


def find(folder: Path) -> Path | None:
    """The stack file at the top of a tree; a link is none."""
    files = (folder / name for name in FILE_NAMES)
    return next((file for file in files if file.is_file() and not file.is_symlink()), None)


def parse(data: bytes | str, environment: Mapping[str, str] | None = None) -> Stack:
    """Read a stack file; `environment` is what `${NAME}` sees, empty in the cloud."""
    node = _compose(substitute(_text(data), environment or {}))
    decoder = _Decoder()
    if node is None:
        raise Malformed("the file is empty")
    stack = decoder.stack(node)
    if decoder.problems:
        raise Malformed("\n".join(text for _, text in sorted(decoder.problems)))
    return replace(stack, ignored=decoder.ignored.lines())


def parse_environment_file(data: bytes) -> Mapping[str, str]:
    """An `environment_file`: YAML whose top-level map `environment` holds names and values."""
    node = _compose(_text(data))
    decoder = _Decoder()
    found = [
        decoder.texts(value, key)
        for key, value in (decoder.entries(node, "") if node else ())
        if key == "environment"
    ]
    if decoder.problems:
        raise Malformed("\n".join(text for _, text in sorted(decoder.problems)))
    return found[0] if found else {}


def document(stack: Stack) -> Mapping[str, Any]:
    """The stack as it could stand in a file: fields named as there, what is empty left out."""

    def filled(value: Any) -> Any:
        if is_dataclass(value):
            value = {row.name: getattr(value, row.name) for row in fields(value)}
        if isinstance(value, Mapping):
            return {key: filled(item) for key, item in value.items() if item and filled(item)}
        return [filled(item) for item in value] if isinstance(value, tuple) else value

    functions = {function.name: filled(replace(function, name="")) for function in stack.functions}
    return {**filled(replace(stack, functions=(), ignored=())), "functions": functions}


def _text(data: bytes | str) -> str:
    if len(data) > SIZE_LIMIT:
        raise Malformed(f"the file has {len(data)} bytes, {SIZE_LIMIT} are allowed")
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"the file is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _compose(text: str) -> yaml.Node | None:
    # The pure Python loader: what nests too deep ends in RecursionError, not in a crash.
    try:
        return next(iter(yaml.compose_all(text, yaml.SafeLoader)), None)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        # Not what it quotes of the file: that may be a value.
        said = _QUOTED.sub("'…'", str(error.problem or error.context))
        raise Malformed(f"{where}{said}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Malformed(f"not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise Malformed("not YAML that we read: nested too deep") from None


class _Decoder:
    """Turns nodes into values and notes each problem with its line, so that all are told at once."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []
        self.ignored = IgnoredKeys()
        self.mappings: dict[int, Mapping[str, yaml.Node]] = {}
        self.budget = _ENTRIES

    def complain(self, node: yaml.Node, text: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append((line, f"line {line}: {text}"))

    def stack(self, node: yaml.Node) -> Stack:
        given: dict[str, Any] = {}
        for key, value in self.entries(node, ""):
            if key == "version":
                given[key] = self.text(value, key)
                if given[key] not in ("", "1.0"):
                    self.complain(value, f"version: {given[key]} is not known; leave it out, or write 1.0")
            elif key == "provider":
                given[key] = Provider(**self.record(value, key, Provider))
                if given[key].name not in PROVIDERS:
                    self.complain(value, f"provider.name: {given[key].name!r} is not known; write openfaas")
            elif key == "configuration":
                given[key] = Configuration(**self.record(value, key, Configuration))
            elif key == "functions":
                given[key] = tuple(
                    Function(name=name, **self.record(body, f"functions.{name}", Function))
                    for name, body in self.entries(value, key)
                )
            else:
                self.ignored.add("", key, ("version", "provider", "configuration", "functions"))
        if "provider" not in given:  # no line is to blame
            self.problems.append((0, "provider.name is missing: write openfaas"))
        return Stack(**given)

    def record(self, node: yaml.Node, path: str, kind: type) -> dict[str, Any]:
        """The known fields of `kind` below `node`."""
        types = {
            row.name: str(row.type) for row in fields(kind) if row.name != "name" or kind is not Function
        }
        found: dict[str, Any] = {}
        for key, value in self.entries(node, path):
            if key in types:
                found[key] = self._decoders[types[key]](self, value, f"{path}.{key}")
            else:
                self.ignored.add(path, key, types)
        return found

    def text(self, node: yaml.Node, path: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self.complain(node, f"{path}: a text is expected, not {_kind(node)}")
        elif not _is_text(node.value):
            self.complain(node, f"{path}: half of a surrogate pair is no text")
        elif not _is_null(node):
            return str(node.value)
        return ""

    def boolean(self, node: yaml.Node, path: str) -> bool:
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            if node.value.lower() in _TRUE:
                return True
            if node.value.lower() in _FALSE or _is_null(node):
                return False
        self.complain(node, f"{path}: true or false is expected, not {_kind(node)}")
        return False

    def items(self, node: yaml.Node, path: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            self.spend(len(node.value))
            return [item for item in node.value if not _is_null(item)]
        if not _is_null(node):
            self.complain(node, f"{path}: a list is expected, not {_kind(node)}")
        return []

    def words(self, node: yaml.Node, path: str) -> tuple[str, ...]:
        return tuple(self.text(item, f"{path}[{at}]") for at, item in enumerate(self.items(node, path)))

    def sources(self, node: yaml.Node, path: str) -> tuple[TemplateSource, ...]:
        return tuple(
            TemplateSource(**self.record(item, f"{path}[{at}]", TemplateSource))
            for at, item in enumerate(self.items(node, path))
        )

    def texts(self, node: yaml.Node, path: str) -> Mapping[str, str]:
        return {key: self.text(value, f"{path}.{key}") for key, value in self.entries(node, path)}

    def resources(self, node: yaml.Node, path: str) -> Resources:
        return Resources(**self.record(node, path, Resources))

    def entries(self, node: yaml.Node, path: str) -> Iterator[tuple[str, yaml.Node]]:
        """Keys and values of a mapping, merges (`<<`) resolved: what stands here wins."""
        if not isinstance(node, yaml.MappingNode):
            if not _is_null(node):
                where = f"{path}: " if path else ""
                self.complain(node, f"{where}a mapping is expected, not {_kind(node)}")
            return iter(())
        merged = self.merged(node, path)
        self.spend(len(merged))
        return iter(merged.items())

    def merged(self, node: yaml.MappingNode, path: str) -> Mapping[str, yaml.Node]:
        if id(node) not in self.mappings:
            self.mappings[id(node)] = {}  # what a mapping that merges itself finds
            own, parents = self.own_entries(node, path)
            for parent in parents:
                if not isinstance(parent, yaml.MappingNode):
                    self.complain(parent, f"{path}: << takes a mapping, not {_kind(parent)}")
                    continue
                inherited = self.merged(parent, path)
                self.spend(len(inherited))
                own = {**inherited, **own}
            self.mappings[id(node)] = own
        return self.mappings[id(node)]

    def own_entries(self, node: yaml.MappingNode, path: str) -> tuple[dict[str, yaml.Node], list[yaml.Node]]:
        """The entries that stand in `node` itself, and the mappings that it merges."""
        own: dict[str, yaml.Node] = {}
        lines: dict[str, int] = {}
        parents: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                parents += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif not isinstance(key, yaml.ScalarNode):
                self.complain(key, f"{path}: a key is a text, not {_kind(key)}")
            elif not _is_text(key.value):
                self.complain(key, f"{path}: half of a surrogate pair is no text")
            elif key.value in own:
                self.complain(key, f"{path}.{key.value} is there already, in line {lines[key.value]}")
            elif not _is_null(key):
                own[key.value], lines[key.value] = value, key.start_mark.line + 1
        return own, parents

    def spend(self, entries: int) -> None:
        """Bound what aliases can multiply."""
        self.budget -= entries
        if self.budget < 0:
            raise Malformed(f"more than {_ENTRIES} entries, aliases counted each time")

    _decoders: Mapping[str, Callable[[_Decoder, yaml.Node, str], Any]] = {
        "str": text,
        "bool": boolean,
        "tuple[str, ...]": words,
        "tuple[TemplateSource, ...]": sources,
        "Mapping[str, str]": texts,
        "Resources": resources,
    }


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a text"  # not which: it may be a secret value at a wrong place
