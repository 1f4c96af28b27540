"""A repository that tries every trick at once, and what became of it."""

from __future__ import annotations

import json
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sdk import naming

from .cloud import Cloud, Repository, handler, until

Make = Callable[..., Repository]

SECRETS = "/var/openfaas/secrets"
FUNCTION = {"lang": "python3-http", "image": "same:latest"}
# Each function is a trick; what the author is told of it.
TRICKS: dict[str, tuple[dict[str, object], str]] = {
    "link": ({"handler": "./link"}, "leaves the repository"),  # flaw 1
    "link-folder": ({"handler": "./link-folder"}, "leaves the repository"),
    "handler-link": ({"handler": "./to-secrets"}, "leaves the repository"),
    "up": ({"handler": "../.."}, "leaves the repository"),
    "absolute": ({"handler": SECRETS}, "leaves the repository"),
    "git": ({"handler": ".git"}, "is not a folder of the repository"),  # flaw 2
    "nowhere": ({"handler": "./nowhere"}, "is not a folder of the repository"),
    "environment-link": ({"handler": "./good", "environment_file": ["to-key"]}, "leaves the repository"),
    "environment-nul": ({"handler": "./good", "environment_file": ["a\0b"]}, "leaves the repository"),
    "dockerfile": ({"handler": "./good", "lang": "dockerfile"}, "lang: dockerfile is not enabled"),
    "template": ({"handler": "./good", "lang": "mine"}, "is not allowed: setting allowed_template_sources"),
    "base-image": (
        {"handler": "./good", "build_args": {"python_image": "127.0.0.1:5000/openfaas-cloud/git-tar"}},
        "not yours to set",
    ),
    "proxy": ({"handler": "./good", "build_args": {"https_proxy": "http://m.example"}}, "not yours to set"),
    "frontend": ({"handler": "./good", "build_args": {"BUILDKIT_SYNTAX": "m/evil"}}, "not yours to set"),
    "nul": ({"handler": "./good", "build_args": {"A": "x\0"}}, "or a NUL"),
    "argument": ({"handler": "./good", "build_args": {"A": "x" * 100_000}}, "more than 65536 bytes"),
    "namespace": ({"handler": "./good", "namespace": "kube-system"}, "is not allowed here"),
    "memory": ({"handler": "./good", "limits": {"memory": "64Gi"}}, "from 4Mi to 128Mi"),
    "tiny": ({"handler": "./good", "limits": {"memory": "1"}}, "from 4Mi to 128Mi"),
    "platform-secret": ({"handler": "./good", "secrets": ["payload-secret"]}, "has no such secret"),  # flaw 4
    "probe": (
        {"handler": "./good", "annotations": {"com.openfaas.health.http.path": "@registry:5000/v2/"}},
        "is not a path",
    ),
    "Upper": ({"handler": "./good"}, "function name 'Upper' is not allowed"),  # flaw 14
    "../../up": ({"handler": "./good"}, "is not allowed"),
    "n" * 60: ({"handler": "./good"}, "63 are allowed"),
}


def hostile(repo: Repository) -> None:
    """Commit all tricks, beside a function that is fine."""
    files = {"good/handler.py": handler("fine"), "good/requirements.txt": "", "good/context.tar": "mine"}
    functions: dict[str, dict[str, object]] = {"good": {**FUNCTION, "handler": "./good"}}
    functions |= {name: {**FUNCTION, **fields} for name, (fields, _) in TRICKS.items()}
    functions["good"] |= {
        "labels": {"role": "openfaas-system", "com.openfaas.cloud.git-owner": "alice", "Git-Owner": "alice"},
        "annotations": {"com.openfaas.cloud.nonce": "mine"},
        "constraints": ["node.role == manager"],
        "readonly_root_filesystem": False,
    }
    stack = {
        "provider": {"name": "openfaas"},
        "configuration": {
            "templates": [{"name": "mine", "source": "http://git-server:8080/m/templates.git"}]
        },
        "functions": functions,
    }
    files["stack.yml"] = json.dumps(stack)
    files[".gitmodules"] = '[submodule "s"]\n\tpath = s\n\turl = ext::sh -c touch% /tmp/pwned\n'
    files[".gitattributes"] = "*.bin filter=evil\n* text eol=crlf\n"
    for name in ("link", "link-folder"):
        files[f"{name}/handler.py"] = handler("x")
    links = {
        "link/leak": f"{SECRETS}/payload-secret",
        "link-folder/leak": SECRETS,
        "to-secrets": SECRETS,
        "to-key": f"{SECRETS}/payload-secret",
    }
    for name, target in links.items():
        (repo.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (repo.folder / name).symlink_to(target)
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},s")
    (repo.folder / "s").mkdir()
    repo.commit(files)


def test_a_repository_that_tries_every_trick_gets_nothing(
    cloud: Cloud, repository: Make, owner: str, tmp_path: Path
) -> None:
    repo, before = repository(), cloud.deployed("git-tar")
    hostile(repo)
    code, told = repo.push()
    assert code != 0
    flat = " ".join(line.removeprefix("remote:").strip() for line in told.splitlines())
    for name, (_, said) in TRICKS.items():
        assert said in flat, f"{name}: {said!r} is not in\n{told}"
    assert "submodules are not fetched here: s" in flat
    assert "Traceback" not in told
    assert {name for name in cloud.names() if name.startswith(f"{owner}-")} == {f"{owner}-good"}
    assert repo.call("good") == (200, "fine")
    assert cloud.deployed("git-tar") == before
    good_one = cloud.gateway.get(f"{owner}-good")
    assert good_one
    labels = good_one.labels or {}
    assert labels["com.openfaas.cloud.git-owner"] == owner
    assert not {"role", "Git-Owner"} & set(labels)
    good = set(names_in_image(cloud, f"{owner}-good", tmp_path))
    assert "home/app/function/context.tar" in good, "flaw 16: such a file was dropped"
    assert not [name for name in good if "/.git/" in name]


def test_what_is_built_holds_no_secret_of_the_platform(
    cloud: Cloud, repository: Make, tmp_path: Path
) -> None:
    """Every context and image that this repository made, and those of the platform's own functions."""
    repo = repository()
    repo.functions(hello="one")
    (repo.folder / "hello" / "leak").symlink_to(f"{SECRETS}/payload-secret")
    repo.commit({})
    assert repo.push()[0] != 0
    (repo.folder / "hello" / "leak").unlink()
    repo.functions(hello="two")
    assert repo.push()[0] == 0
    files = cloud.state.secrets_folder.iterdir()
    values = [file.read_bytes().strip() for file in files if file.name != "basic-auth-user"]
    for name in (repo.service("hello"), *naming.PIPELINE):
        for content in contents_of_image(cloud, name, tmp_path):
            assert not [value for value in values if value in content], name
    left = cloud.container("of-builder").exec_run(["find", "/tmp", "-name", "build-*"]).output
    assert not left


def test_pushes_at_once_on_two_branches_never_mix(cloud: Cloud, repository: Make) -> None:
    """Flaws 8 and 10: what stays is the last push to the branch that is built, whole."""
    repo = repository()
    repo.functions(one="start", two="start")
    assert repo.push()[0] == 0
    url = repo.git("remote", "get-url", "cloud")
    clones = [repo.folder.with_name(f"clone-{number}") for number in range(10)]
    for clone in clones:
        subprocess.run(("git", "clone", "--quiet", "--branch=master", url, clone), check=True, timeout=60)

    def push(number: int, clone: Path) -> None:
        branch = "other" if number % 2 else "master"
        git = ("git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@example.com")
        for name in ("one", "two"):
            (clone / name / "handler.py").write_text(handler(f"{number + 10}"))
        subprocess.run((*git, "commit", "-qam", "change"), check=True, timeout=60)
        command = (*git, "push", "--force", "origin", f"HEAD:refs/heads/{branch}")
        subprocess.run(command, capture_output=True, timeout=300)

    threads = [threading.Thread(target=push, args=pair) for pair in enumerate(clones)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def settled() -> bool:
        head = subprocess.run(
            ("git", "ls-remote", url, "refs/heads/master"), capture_output=True, text=True, timeout=60
        ).stdout[:40]
        functions = [cloud.gateway.get(repo.service(name)) for name in ("one", "two")]
        return all(
            function and (function.labels or {})["com.openfaas.cloud.git-sha"] == head
            for function in functions
        )

    until(settled, what="both functions at the branch's head")
    one, two = repo.call("one"), repo.call("two")
    assert one == two
    assert (one[0], int(one[1]) % 2) == (200, 0)


def layers(cloud: Cloud, function: str, folder: Path) -> Iterator[tarfile.TarFile]:
    """The layers of the image that the function runs."""
    status = cloud.gateway.get(function)
    assert status
    saved = folder / f"{function}.tar"
    with saved.open("wb") as file:
        for piece in cloud.engine.images.get(status.image).save():
            file.write(piece)
    with tarfile.open(saved) as image:
        for entry in image.getmembers():
            content = image.extractfile(entry) if entry.isfile() and entry.size > 100 else None
            if content:
                try:
                    with tarfile.open(fileobj=content) as layer:
                        yield layer
                except tarfile.ReadError:  # JSON, not a layer
                    continue
    saved.unlink()


def names_in_image(cloud: Cloud, function: str, folder: Path) -> Iterator[str]:
    for layer in layers(cloud, function, folder):
        yield from layer.getnames()


def contents_of_image(cloud: Cloud, function: str, folder: Path) -> Iterator[bytes]:
    for layer in layers(cloud, function, folder):
        for entry in layer.getmembers():
            # Ours and the author's files; the base image is Debian's.
            file = layer.extractfile(entry) if entry.isfile() and entry.name.startswith("home/app") else None
            if file:
                yield file.read()
