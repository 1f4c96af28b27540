from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey

from of_builder.sealed import Key
from of_builder.tarball import unpack
from sdk import context, signature
from sdk.context import BuildConfig, SignedTar
from sdk.errors import Unavailable
from sdk.secrets import Keys
from sdk.shrinkwrap import Context, Entry, shrinkwrap
from sdk.stack import Function

KEYS = Keys("payload-secret", (b"payload",))
KEY = Key(PrivateKey.generate())
CONFIG = BuildConfig("registry:5000/github/1/2/f:sha", {"A": "1"})
FUNCTION = Function("f", lang="dockerfile", handler=".")


def planned(folder: Path, files: dict[str, tuple[bytes, int]]) -> Context:
    folder.mkdir()
    for name, (content, mode) in {"Dockerfile": (b"FROM scratch\n", 0o644), **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    return shrinkwrap(FUNCTION, folder, {})


def written(folder: Path, files: dict[str, tuple[bytes, int]], config: BuildConfig = CONFIG) -> SignedTar:
    return context.write_tar(planned(folder, files), folder.parent / f"{folder.name}.tar", KEYS, config)


def test_the_tar_is_as_faas_cli_sends_it(tmp_path: Path) -> None:
    files = {"b.txt": (b"b", 0o600), "a/x.sh": (b"#!/bin/sh\n", 0o755)}
    plan = planned(tmp_path / "t", files)
    signed = context.write_tar(plan, tmp_path / "t.tar", KEYS, CONFIG, lambda digest: digest.encode())
    with tarfile.open(signed.path) as tar:
        names = [info.name for info in tar]
        modes = {info.name: info.mode for info in tar}
    assert names == [
        "context/Dockerfile",
        "context/a",
        "context/a/x.sh",
        "context/b.txt",
        "com.openfaas.cloud.json",
        "com.openfaas.docker.config",
    ]
    assert (modes["context/a/x.sh"], modes["context/b.txt"]) == (0o755, 0o600)
    body = signed.path.read_bytes()
    assert context.read_entry(io.BytesIO(body), "com.openfaas.cloud.json") == signed.digest.encode()
    config = context.read_entry(io.BytesIO(body), "com.openfaas.docker.config")
    assert json.loads(config or b"") == {"image": CONFIG.image, "buildArgs": {"A": "1"}}


def test_the_signature_is_that_of_the_bytes_on_disk(tmp_path: Path) -> None:
    signed = written(tmp_path / "t", {"big.bin": (bytes(700_000), 0o644)})
    signature.verify(signed.path.read_bytes(), signed.signature, KEYS)


def test_a_file_called_context_tar_is_kept(tmp_path: Path) -> None:
    """Flaw 16: makeTar dropped any file called `context.tar`."""
    signed = written(tmp_path / "t", {"context.tar": (b"mine", 0o644)})
    with tarfile.open(signed.path) as tar:
        assert "context/context.tar" in tar.getnames()


def test_long_and_unicode_names_arrive(tmp_path: Path) -> None:
    name = "ü" * 60 + "/" + "x" * 200
    signed = written(tmp_path / "t", {name: (b"", 0o644)})
    with tarfile.open(signed.path) as tar:
        assert f"context/{name}" in tar.getnames()


def test_of_builder_finds_the_digest_that_git_tar_sent(tmp_path: Path) -> None:
    signed = written(tmp_path / "t", {"a/b.sh": (b"x", 0o755), "c": (b"", 0o644)})
    (tmp_path / "work").mkdir()
    job = unpack(signed.path, tmp_path / "work", KEY, entries_limit=100, bytes_limit=10**6)
    assert job.digest == signed.digest


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "e/f/g"])
FILES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=20), st.sampled_from([0o644, 0o755])), max_size=4)
ARGS = st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=3), max_size=2)


@settings(max_examples=60, deadline=None)
@given(FILES, ARGS, FILES, ARGS)
def test_the_digest_is_the_same_only_for_the_same_files_modes_and_build_args(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, tuple[bytes, int]],
    args: dict[str, str],
    other_files: dict[str, tuple[bytes, int]],
    other_args: dict[str, str],
) -> None:
    folder = tmp_path_factory.mktemp("digest")
    one = written(folder / "one", files, BuildConfig("r/f:1", args)).digest
    two = written(folder / "two", other_files, BuildConfig("r/f:2", other_args)).digest
    assert (one == two) == ((files, args) == (other_files, other_args))


@given(
    name=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    size=st.integers(0, 2 * 8**11),
    mode=st.integers(0, 0o777),
)
@example(name="a" * 100, size=0, mode=0o644)
@example(name="a" * 101, size=8**11 - 1, mode=0)
@example(name="ä", size=8**11, mode=0o777)
def test_a_header_is_what_tarfile_would_write(name: str, size: int, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    assert context.header(name, size, mode) == info.tobuf(tarfile.PAX_FORMAT)


def test_a_file_that_shrinks_while_it_is_packed_is_no_context(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("short")
    longer = Context("f")
    longer.entries["file"] = Entry(str(file), 0o644, 6, False)
    with pytest.raises(Unavailable, match="context/file became shorter"):
        context.write_tar(longer, tmp_path / "tar", KEYS, CONFIG)
