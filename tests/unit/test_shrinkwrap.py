from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk import stack, templates
from sdk.errors import CloudError, Failed, Refused, TooLarge
from sdk.shrinkwrap import Limits, shrinkwrap, template_of
from sdk.stack import Function
from tests.conftest import DATA, ROOT
from tests.contract.fakes import FakeGateway, running

from .differences import LEFTOVERS, NO_PUSH, REFUSED

GOLDEN = json.loads((DATA / "faas-cli" / "shrinkwrap.json").read_text())
CASES: Mapping[str, Mapping[str, Any]] = GOLDEN["cases"]

GOLDEN_CASES = sorted(set(CASES) - set(NO_PUSH) - set(REFUSED))


def lay_out(rows: list[dict[str, Any]], folder: Path) -> None:
    for row in rows:
        path = folder / row["path"]
        if row["kind"] == "dir":
            path.mkdir(parents=True, exist_ok=True)
            if "mode" in row:
                path.chmod(int(row["mode"], 8))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if row["kind"] == "link":
            path.symlink_to(row["target"])
        else:
            path.write_text(row["text"])
            path.chmod(int(row["mode"], 8))


def laid_out(name: str, folder: Path) -> tuple[Path, Mapping[str, Path]]:
    """The case's repository, and the templates."""
    lay_out(CASES[name]["input"], folder / "case")
    for language, rows in GOLDEN["templates"].items():
        lay_out(rows, folder / "templates" / "template" / language)
    return folder / "case" / CASES[name]["expected"]["cwd"], templates.languages(folder / "templates")


def build(name: str, folder: Path) -> Path:
    """Shrinkwrap every function of the case, as `faas-cli build --shrinkwrap` does."""
    repository, languages = laid_out(name, folder)
    text = (repository / "stack.yml").read_bytes()
    found = stack.parse(text, CASES[name]["expected"]["env"])
    out = folder / "out"
    problems = []
    for function in found.functions:
        if function.skip_build:
            continue
        try:
            shrinkwrap(function, repository, languages, found.configuration.copy).write(out / function.name)
        except CloudError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return out


def files(root: Path) -> dict[str, tuple[str, str]]:
    """Path → (mode, sha256) of files, (`dir`, ``) of folders."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        assert not path.is_symlink(), name
        if path.is_dir():
            found[name] = ("dir", "")
        else:
            found[name] = (
                f"{path.stat().st_mode & 0o7777:04o}",
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
    return found


def recorded(name: str) -> dict[str, tuple[str, str]]:
    return {
        row["path"].removeprefix("build/"): ("dir", "")
        if row["type"] == "dir"
        else (row["mode"], row["sha256"])
        for row in CASES[name]["expected"]["tree"]
        if row["path"] != "build"
    }


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_a_golden_case_gives_faas_clis_tree_or_its_error(name: str, tmp_path: Path) -> None:
    if CASES[name]["expected"]["exit_code"]:
        with pytest.raises(CloudError):
            build(name, tmp_path)
        return
    expected = recorded(name)
    if left := LEFTOVERS.get(name):
        expected = {path: row for path, row in expected.items() if not path.startswith(left)}
    assert files(build(name, tmp_path)) == expected


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_case_that_escapes_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    repository, _ = laid_out(name, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Refused):
        build(name, tmp_path)
    assert [path for path in sorted(tmp_path.rglob("*")) if "out" not in path.parts] == before
    assert repository.exists()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "fn").mkdir(parents=True)
    (folder / "fn" / "Dockerfile").write_text("FROM scratch\n")
    return folder


WEB = Function("web", lang="dockerfile", handler="./fn")


def test_a_link_out_of_the_repository_is_refused(repository: Path, tmp_path: Path) -> None:
    """Flaw 1: `fn/leak -> /var/openfaas/secrets` shipped the platform's keys in the user's image."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "payload-secret").write_text("hunter2")
    for target in (tmp_path / "secrets", "../../secrets/payload-secret", "/etc/passwd", ".."):
        (repository / "fn" / "leak").symlink_to(target)
        with pytest.raises(Refused, match="leak"):
            shrinkwrap(WEB, repository, {})
        (repository / "fn" / "leak").unlink()


@pytest.mark.parametrize("handler", ["../x", "/etc", "fn/../../x", "a/../../..", "link"])
def test_a_handler_outside_the_repository_is_refused(handler: str, repository: Path) -> None:
    (repository / "link").symlink_to("/etc")
    with pytest.raises(Refused, match="handler"):
        shrinkwrap(Function("web", lang="dockerfile", handler=handler), repository, {})


@pytest.mark.parametrize("path", ["../repository-evil", "/etc/passwd", "..", "link"])
def test_an_extra_path_outside_the_repository_is_refused(path: str, repository: Path) -> None:
    """Flaw 1: paths that merely start with the repository's path were accepted."""
    (repository.parent / "repository-evil").mkdir()
    (repository / "link").symlink_to("../repository-evil")
    with pytest.raises(Refused, match="leaves"):
        shrinkwrap(WEB, repository, {}, (path,))


def test_links_that_lead_in_a_circle_or_nowhere_are_refused(repository: Path) -> None:
    for name, target in {"a": "a", "b": ".", "c": "../fn", "d": "nothing"}.items():
        (repository / "fn" / name).symlink_to(target)
        with pytest.raises(Refused, match=name):
            shrinkwrap(WEB, repository, {})
        (repository / "fn" / name).unlink()


def test_folders_that_links_multiply_are_bounded(repository: Path) -> None:
    for depth in range(20):
        folder = repository / f"d{depth}"
        folder.mkdir()
        for link in ("l", "r"):
            (folder / link).symlink_to(f"../d{depth + 1}" if depth < 19 else "../fn")
    (repository / "fn" / "start").symlink_to("../d0")
    with pytest.raises((TooLarge, Refused)):
        shrinkwrap(WEB, repository, {}, limits=Limits(files=1000))


def test_a_context_too_large_names_its_largest_files(repository: Path) -> None:
    (repository / "fn" / "video.bin").write_bytes(bytes(3 * 1024**2))
    with pytest.raises(TooLarge, match=r"more than 2\.0 MiB.*video\.bin \(3\.0 MiB\)"):
        shrinkwrap(WEB, repository, {}, limits=Limits(bytes=2 * 1024**2))


def test_a_device_is_not_copied(repository: Path) -> None:
    os.mkfifo(repository / "fn" / "pipe")
    with pytest.raises(Refused, match="pipe"):
        shrinkwrap(WEB, repository, {})


def test_an_unknown_language_names_those_there_are(tmp_path: Path) -> None:
    languages = {"go": tmp_path, "python3-http": tmp_path}
    with pytest.raises(Failed, match="the languages here are: go, python3-http"):
        template_of(Function("f", lang="cobol"), languages)
    with pytest.raises(Failed, match="lang is missing"):
        template_of(Function("f"), languages)


def test_build_options_become_sorted_packages(tmp_path: Path) -> None:
    lay_out(GOLDEN["templates"]["pyfn"], tmp_path)
    template = templates.read_template(tmp_path)
    function = Function("f", build_options=("pg", "dev"), build_args={"ADDITIONAL_PACKAGE": "curl gcc"})
    assert templates.additional_packages(function, template) == "curl gcc libpq-dev musl-dev"
    with pytest.raises(Failed, match="the template has: dev, pg"):
        templates.additional_packages(Function("f", build_options=("nope",)), template)


PARTS = st.sampled_from(["fn", "a", "b", "build", "template", "..", ".", "a b", "é", "-x", "*", "con\\t"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
LINKS = (
    PATHS
    | PATHS.map("/{}".format)
    | st.sampled_from(["/", "../../secret", "../secret/key", "/proc/self/environ"])
)


@settings(deadline=None)
@given(
    tree=st.lists(st.tuples(PATHS, st.none() | LINKS), max_size=8),
    handler=PATHS | LINKS,
    extra=st.lists(PATHS | LINKS, max_size=2),
)
def test_any_tree_is_packed_from_inside_or_refused(
    tree: list[tuple[str, str | None]], handler: str, extra: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as work:
        root, secret = Path(work) / "x" / "repository", Path(work) / "x" / "secret"
        (root / "fn").mkdir(parents=True)
        secret.mkdir()
        (secret / "key").write_text("hunter2")
        for path, target in tree:
            place = root / path
            if root not in (real := Path(os.path.normpath(place))).parents or ".." in path:
                continue
            with suppress(OSError):
                real.parent.mkdir(parents=True, exist_ok=True)
                if real.parent.resolve() == real.parent:
                    real.symlink_to(target) if target else real.write_text("inside")
        before = sorted(Path(work).rglob("*"))
        function = Function("web", lang="dockerfile", handler=handler)
        try:
            context = shrinkwrap(function, root, {}, extra)
        except CloudError:
            assert sorted(Path(work).rglob("*")) == before
            return
        context.write(Path(work) / "out")
        for packed in (Path(work) / "out").rglob("*"):
            assert packed.is_dir() or packed.read_text() == "inside"


PACK = """
import resource, sys
from pathlib import Path
from sdk.context import BuildConfig, write_tar
from sdk.gateway import Gateway
from sdk.secrets import Keys
from sdk.shrinkwrap import Limits, shrinkwrap
from sdk.stack import Function

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = used()
function, work = Function("web", lang="dockerfile", handler="./fn"), Path(sys.argv[1])
context = shrinkwrap(function, work, {}, limits=Limits(files=30_000))
write_tar(context, work / "tar", Keys("k", (b"k",)), BuildConfig("r/web:1"), lambda digest: b"{}")
with (work / "tar").open("rb") as body:
    Gateway(sys.argv[2]).invoke("buildshiprun", body, {}, 30)
print(used() - before)
"""


@pytest.mark.parametrize("count", [1, 20_000])
def test_a_context_of_50_mb_is_packed_and_sent_in_little_memory(count: int, tmp_path: Path) -> None:
    """Flaw 18: it took 127 MB in git-tar."""
    (tmp_path / "fn").mkdir()
    for number in range(count):
        name = f"file-{number:05}-with-a-name-of-some-length.txt"
        (tmp_path / "fn" / name).write_bytes(bytes(50_000_000 // count))
    gateway = FakeGateway()
    gateway.handlers = {"buildshiprun": lambda event: {"statusCode": 200, "body": ""}}
    with running(gateway):
        command = (sys.executable, "-c", PACK, str(tmp_path), gateway.url)
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    [(*_, sent)] = gateway.calls
    assert len(sent) == (tmp_path / "tar").stat().st_size
    assert (tmp_path / "tar").stat().st_size > 50_000_000
    assert int(done.stdout) < 25 * 1024, "KiB"
