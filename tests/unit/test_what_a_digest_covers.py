"""A wrong skip is worse than a slow push: whatever can matter changes a digest, and nothing else does.

The context's digest goes the whole way: a repository's folder, its stack.yml and a template become a tar,
as git-tar makes it, and of-builder finds the same digest in that tar.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from buildshiprun import deployment
from buildshiprun.sdk.messages import Owner, Shipment, Template
from buildshiprun.sdk.settings import Settings as BuildshiprunSettings
from buildshiprun.sdk.stack import Function, Resources
from git_tar.contexts import Tree, pack
from git_tar.mirrors import Mirrors
from git_tar.sdk import stack
from git_tar.sdk.messages import Push
from git_tar.sdk.secrets import Keys
from git_tar.sdk.settings import Settings
from git_tar.sources import held
from git_tar.template_cache import TemplateCache
from of_builder import tarball

from .test_context import KEY
from .test_deployment import REPOSITORY, SETTINGS, SHIPMENT
from .test_messages import PUSH

KEYS = Keys("payload-secret", (b"payload",))
# A file's content, and whether it may be run; what a link leads to; None is an empty folder.
Node = tuple[bytes, bool] | str | None


@dataclass
class World:
    """Everything that a build begins with, and what it has no part of."""

    repository: dict[str, Node]
    template: dict[str, Node]
    function: dict[str, Any]
    others: dict[str, Any] = field(default_factory=dict)
    copy: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    push: dict[str, Any] = field(default_factory=dict)
    reverse: bool = False

    def digest(self) -> str:
        """As git-tar computes it, after of-builder has found the same."""
        with tempfile.TemporaryDirectory() as folder:
            return self._packed(Path(folder))

    def _packed(self, folder: Path) -> str:
        repository, templates = folder / "repository", folder / "templates"
        self._write(repository, {"README.md": (b"read me", False), **self.repository})
        self._write(templates / "template" / "words", self.template)
        rows = {
            "provider": {"name": "openfaas"},
            "functions": {**self.others, "f": {"lang": "words", "handler": "./f", **self.function}},
            "configuration": {"copy": self.copy},
        }
        found = stack.parse(json.dumps(rows).encode())
        settings = Settings(custom_templates=(str(templates),), enable_dockerfile_lang=True, **self.settings)
        push = Push(**{**vars(PUSH), **self.push})
        cache = TemplateCache(folder / "cache", Mirrors(folder / "mirrors"))
        with held(cache, found.configuration, settings) as sources:
            tree = Tree(push, push.after, repository, found.configuration, sources)
            [function] = [function for function in found.functions if function.name == "f"]
            tar = pack(function, tree, folder / "f.tar", settings, KEYS)
        work = folder / "work"
        work.mkdir()
        job = tarball.unpack(tar.path, work, KEY, entries_limit=1000, bytes_limit=10**7)
        assert job.digest == tar.digest
        return tar.digest

    def _write(self, root: Path, nodes: Mapping[str, Node]) -> None:
        for name in sorted(nodes, reverse=self.reverse):
            path, node = root / name, nodes[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            if node is None:
                path.mkdir(exist_ok=True)
            elif isinstance(node, str):
                path.symlink_to(node)
            else:
                path.write_bytes(node[0])
                path.chmod(0o755 if node[1] else 0o644)
                if self.reverse:
                    os.utime(path, (1, 1))


FILES = st.tuples(st.binary(max_size=12), st.booleans())
NAMES = st.sampled_from(["a", "b.py", "d/a", "d/e/ä", ".hidden", "build.py", "Dockerfile", ".dockerignore"])
TEMPLATE_YML = b"language: words\nfprocess: run\nbuild_options: [{name: dev, packages: [make, gcc]}]\n"


@st.composite
def worlds(draw: st.DrawFn) -> World:
    drawn = draw(st.dictionaries(NAMES, FILES, max_size=4))
    inside: dict[str, Node] = {"handler.py": (b"handler", False), "left": (b"left", False), **drawn}
    inside |= {"right": (b"right", False), "link": "left", "empty": None}
    shared: dict[str, Node] = {"one": (draw(st.binary(max_size=5)), False), "deep/two": (b"2", False)}
    template = draw(st.dictionaries(NAMES, FILES, max_size=3))
    return World(
        repository={
            **{f"f/{name}": node for name, node in inside.items()},
            **{f"other/{name}": (b"other", False) for name in ("handler.py", "x")},
            **{f"shared/{name}": node for name, node in shared.items()},
        },
        template={
            **template,
            "template.yml": (TEMPLATE_YML, False),
            "Dockerfile": (b"FROM scratch\n", False),
            "index.py": (b"index", False),
        },
        function={
            "build_args": draw(st.dictionaries(st.sampled_from(["A", "B"]), st.text("xyz", max_size=3))),
            "build_options": draw(st.sampled_from([[], ["dev"]])),
        },
        copy=draw(st.sampled_from([[], ["shared"]])),
        settings={"build_args": draw(st.sampled_from([{}, {"PYTHON_IMAGE": "base:1"}]))},
    )


Change = Callable[[World], object]


def content(world: World, place: str, name: str) -> None:
    nodes = getattr(world, place)
    nodes[name] = (nodes[name][0] + b"!", nodes[name][1])


def mode(world: World, place: str, name: str) -> None:
    nodes = getattr(world, place)
    nodes[name] = (nodes[name][0], not nodes[name][1])


def renamed(world: World, old: str, new: str) -> None:
    world.repository[new] = world.repository.pop(old)


def with_template(world: World, old: bytes, new: bytes) -> None:
    world.template["template.yml"] = (TEMPLATE_YML.replace(old, new), False)


def as_dockerfile(world: World) -> None:
    world.function.update(lang="dockerfile", build_options=[])
    world.repository["f/Dockerfile"] = (b"FROM scratch\n", False)


MATTERS: dict[str, Change] = {
    "a file's content": lambda world: content(world, "repository", "f/handler.py"),
    "what a link leads to": lambda world: world.repository.update({"f/link": "right"}),
    "the content behind a link": lambda world: content(world, "repository", "f/left"),
    "a file that may be run": lambda world: mode(world, "repository", "f/handler.py"),
    "one more file": lambda world: world.repository.update({"f/more": (b"", False)}),
    "one file less": lambda world: world.repository.pop("f/handler.py"),
    "another name": lambda world: renamed(world, "f/handler.py", "f/handlers.py"),
    "another folder": lambda world: renamed(world, "f/handler.py", "f/new/handler.py"),
    "one more empty folder": lambda world: world.repository.update({"f/more": None}),
    "one empty folder less": lambda world: world.repository.pop("f/empty"),
    "a file in place of a folder": lambda world: world.repository.update({"f/empty": (b"", False)}),
    "another handler": lambda world: world.function.update(handler="./other"),
    "a copied folder": lambda world: world.copy.append("other"),
    "another copied folder": lambda world: setattr(world, "copy", ["other"]),
    "another build arg": lambda world: world.function["build_args"].update(C="1"),
    "a build arg's value": lambda world: world.function["build_args"].update(A="other"),
    "more packages": lambda world: world.function["build_args"].update(ADDITIONAL_PACKAGE="curl"),
    "the template's file": lambda world: content(world, "template", "index.py"),
    "the template's mode": lambda world: mode(world, "template", "index.py"),
    "the template's Dockerfile": lambda world: content(world, "template", "Dockerfile"),
    "the template's next file": lambda world: world.template.update({"new": (b"", False)}),
    "the template's fprocess": lambda world: with_template(world, b"fprocess: run", b"fprocess: go"),
    "the template's packages": lambda world: with_template(world, b"gcc", b"clang"),
    "the handler's folder": lambda world: with_template(world, b"\nbuild", b"\nhandler_folder: src\nbuild"),
    "a Dockerfile of one's own": as_dockerfile,
    "the operator's base image": lambda world: world.settings.update(build_args={"PYTHON_IMAGE": "base:2"}),
    "the operator's epoch": lambda world: world.settings.update(build_epoch="2026-11"),
}

# These are in what is deployed, or in nothing that is live.
DOES_NOT: dict[str, Change] = {
    "order and times": lambda world: setattr(world, "reverse", True),
    "the commit": lambda world: world.push.update(after="b" * 40, before="a" * 40),
    "the branch": lambda world: world.push.update(ref="refs/heads/next"),
    "the delivery": lambda world: world.push.update(delivery="d-2"),
    "README": lambda world: world.repository.update({"README.md": (b"new", False)}),
    "another function": lambda world: world.others.update({"g": {"lang": "words", "handler": "./other"}}),
    "another function's files": lambda world: content(world, "repository", "other/x"),
    "the order of options": lambda world: world.function["build_options"].sort(reverse=True),
    "environment": lambda world: world.function.update(environment={"X": "1"}),
    "labels": lambda world: world.function.update(labels={"x": "1"}, annotations={"topic": "t"}),
    "limits": lambda world: world.function.update(limits={"memory": "64Mi"}),
    "secrets": lambda world: world.function.update(secrets=["db"]),
    "fprocess": lambda world: world.function.update(fprocess="other"),
    "image": lambda world: world.function.update(image="mine:2"),
    "a folder named build": lambda world: world.repository.update({"f/build/x": (b"", False)}),
}


@pytest.mark.parametrize("what", MATTERS)
@examples(max_examples=3, deadline=None)
@given(world=worlds())
def test_whatever_can_matter_changes_the_contexts_digest(what: str, world: World) -> None:
    changed = deepcopy(world)
    MATTERS[what](changed)
    assert changed.digest() != world.digest()


@pytest.mark.parametrize("what", DOES_NOT)
@examples(max_examples=2, deadline=None)
@given(world=worlds())
def test_what_is_in_no_image_does_not(what: str, world: World) -> None:
    changed = deepcopy(world)
    DOES_NOT[what](changed)
    assert changed.digest() == world.digest()


@examples(max_examples=25, deadline=None)
@given(one=worlds(), other=worlds())
def test_two_contexts_have_one_digest_only_if_they_are_one(one: World, other: World) -> None:
    def built(world: World) -> object:
        args = {**world.function["build_args"], **world.settings["build_args"]}
        nodes = {name: node for name, node in world.repository.items() if world.copy or name.startswith("f/")}
        return nodes, world.template, world.function["build_options"], world.copy, args

    assert (one.digest() == other.digest()) == (built(one) == built(other))


TEXTS = st.dictionaries(st.sampled_from(["X", "y"]), st.text("12", max_size=2), max_size=2)
AMOUNTS = st.builds(Resources, st.sampled_from(["", "64Mi"]), st.sampled_from(["", "100m"]))
SHIPMENTS = st.builds(
    Shipment,
    scm=st.just("github"),
    delivery=st.sampled_from(["d-1", "d-2"]),
    repository=st.builds(
        replace,
        st.just(REPOSITORY),
        private=st.booleans(),
        name=st.sampled_from(["hello", "hi"]),
        clone_url=st.sampled_from(["https://git.example/a.git", "https://git.example/b.git"]),
        html_url=st.sampled_from(["https://git.example/a", "https://git.example/b"]),
        owner=st.sampled_from([Owner("alice", 3), Owner("Alice", 3)]),
    ),
    ref=st.sampled_from(["refs/heads/master", "refs/heads/next"]),
    sha=st.sampled_from(["a" * 40, "b" * 40]),
    function=st.builds(
        Function,
        name=st.just("hello"),
        lang=st.sampled_from(["python3-http", "go"]),
        handler=st.sampled_from(["./a", "./b"]),
        fprocess=st.sampled_from(["", "run"]),
        readonly_root_filesystem=st.booleans(),
        secrets=st.sampled_from([(), ("db",), ("db", "key")]),
        environment=TEXTS,
        labels=TEXTS,
        annotations=TEXTS,
        build_args=TEXTS,
        limits=AMOUNTS,
        requests=AMOUNTS,
    ),
    digest=st.sampled_from(["d" * 64, "e" * 64]),
    template=st.builds(Template, st.sampled_from(["t", "u"]), st.sampled_from(["", "c" * 40])),
)
OPERATORS = st.builds(
    BuildshiprunSettings,
    function_memory_limit_mb=st.sampled_from([128, 256]),
    function_cpu_limit_milli=st.sampled_from([500, 50]),
    function_cpu_requests_milli=st.sampled_from([100, 10]),
    readonly_root_filesystem=st.booleans(),
    scaling_min_limit=st.sampled_from([1, 2]),
    scaling_max_limit=st.sampled_from([4, 5]),
    scaling_factor=st.sampled_from([20, 0]),
    retry_pause=st.sampled_from([1, 2]),  # which is in no deployment
)
# Where a version came from, and when: two pushes of one and the same version differ in it.
FROM = {f"com.openfaas.cloud.{name}" for name in ("git-sha", "git-deploytime", "git-clone-url", "template")}


def lasting(spec: Mapping[str, Any]) -> object:
    """What the gateway is asked for, but for where it came from, and for the digest of it all."""
    left_out = {*FROM, deployment.CONFIG}
    rows = {
        part: {key: text for key, text in spec[part].items() if key not in left_out}
        for part in ("labels", "annotations")
    }
    return {**spec, **rows}


@examples(max_examples=150, deadline=None)
@given(SHIPMENTS, OPERATORS, SHIPMENTS, OPERATORS, st.data())
def test_two_deployments_have_one_config_digest_only_if_they_are_one(
    one: Shipment,
    settings: BuildshiprunSettings,
    other: Shipment,
    others: BuildshiprunSettings,
    data: st.DataObject,
) -> None:
    """Drawn far apart, and with one part alone exchanged."""
    part = data.draw(
        st.sampled_from(["delivery", "repository", "ref", "sha", "function", "digest", "template"])
    )
    near = replace(one, **{part: getattr(other, part)})
    word = data.draw(st.sampled_from([name for name in vars(one.function) if name != "name"]))
    nearest = replace(one, function=replace(one.function, **{word: getattr(other.function, word)}))
    first = deployment.wanted(one, settings, now=1_000)
    for shipment, operator in ((other, others), (one, others), (near, settings), (nearest, settings)):
        second = deployment.wanted(shipment, operator, now=2_000)
        same = first["annotations"][deployment.CONFIG] == second["annotations"][deployment.CONFIG]
        assert same == (lasting(first) == lasting(second))


@pytest.mark.parametrize("part", ["sha", "delivery", "template"])
def test_where_a_version_came_from_is_no_part_of_it(part: str) -> None:
    values: dict[str, Any] = {"sha": "f" * 40, "delivery": "d-9", "template": Template("elsewhere", "f" * 40)}
    again = deployment.wanted(replace(SHIPMENT, **{part: values[part]}), SETTINGS, now=9_000)
    before = deployment.wanted(SHIPMENT, SETTINGS, now=1_000)
    assert again["annotations"][deployment.CONFIG] == before["annotations"][deployment.CONFIG]
