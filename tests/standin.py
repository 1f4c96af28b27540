"""Stands in for a program that a guide calls and that can't do its work here: looks at the form, notes it.

`python -m tests.standin PROGRAM ARGUMENT…`, as tests/guides.py has it called. A command that its program
would not take, or a file that is not there, ends with 1.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GUIDE = Path(os.environ.get("GUIDE", ""))
# What is seen of the environment.
_SEEN = ("REPO", "TAG", "OPENFAAS_URL")
# Options that name a file; `KEY=FILE` too.
_FILES = (
    "--from-file",
    "--cert",
    "--key",
    "--values",
    "--file",
    "--filename",
    "-f",
    "--compose-file",
    "--env-file",
)
_OPTIONS: Mapping[str, frozenset[str]] = {
    "kubectl": frozenset(
        "--namespace --from-file --cert --key --filename --output --timeout --patch "
        "--docker-server --docker-username --docker-password".split()
    ),
    "helm": frozenset("--install --namespace --create-namespace --values --set --wait".split()),
    "faas-cli": frozenset("--from-file --username --password-stdin".split()),
    "docker": frozenset(
        "--file --tag --detach --name --restart --init --network --volume --env --quiet --filter".split()
    ),
    "curl": frozenset({"--fail"}),
}
_VERBS: Mapping[str, frozenset[str]] = {
    "kubectl": frozenset("apply create get patch port-forward rollout".split()),
    "helm": frozenset("repo upgrade".split()),
    "faas-cli": frozenset("login secret template up".split()),
    "docker": frozenset("build push run swarm node service".split()),
}
REAL_KUBECTL = next(
    (path for path in ("/usr/bin/kubectl", "/usr/local/bin/kubectl") if Path(path).exists()), ""
)


def main(program: str, argv: Sequence[str]) -> None:
    if program == "python":
        return _python(argv)
    check_form(program, argv)
    keys = [key for option, value in options(argv) for key in _taken(option, value)]
    piped = "-" in argv or "--password-stdin" in argv or program == "htpasswd"
    stdin = sys.stdin.read() if piped else ""
    for option, value in options(argv):
        if option == "--values":
            stdin = Path(value).read_text()
        source = value.partition(":")[0]
        if option == "--volume" and source.startswith(str(GUIDE)) and not Path(source).is_dir():
            raise SystemExit(f"{source} is not there")
    if "tls" in argv and program == "kubectl":
        keys = ["tls.crt", "tls.key"]
    note(program, argv, stdin, keys)
    if program in _ANSWERS:
        _ANSWERS[program](argv, stdin)
    return None


def options(argv: Sequence[str]) -> list[tuple[str, str]]:
    """Each option with its value; the next word, where it has no `=`."""
    found = []
    for number, word in enumerate(argv):
        if word.startswith("-") and word != "-":
            name, equals, value = word.partition("=")
            found.append((name, value if equals else (*argv, "")[number + 1]))
    return found


def check_form(program: str, argv: Sequence[str]) -> None:
    """Whether it is a command that we know: another one is looked up, and added to the tables above."""
    verbs = [word for word in argv if word in _VERBS.get(program, frozenset())]
    if program in _VERBS and not verbs:
        raise SystemExit(f"{program} {' '.join(argv)}: which command is it?")
    known = _OPTIONS.get(program)
    if unknown := [name for name, _ in options(argv) if known is not None and name not in known]:
        raise SystemExit(f"{program}: {', '.join(unknown)}: not known to the tests")


def note(program: str, argv: Sequence[str], stdin: str = "", keys: Sequence[str] = ()) -> None:
    seen = {name: os.environ[name] for name in _SEEN if name in os.environ}
    call = {"tool": program, "argv": argv, "stdin": stdin, "keys": keys, "environment": seen}
    with (GUIDE / "calls").open("a") as file:
        file.write(json.dumps(call) + "\n")


def _taken(option: str, value: str) -> list[str]:
    """The key that a file becomes; the file must be there."""
    if option not in _FILES or value == "-" or value.startswith("https://"):
        return []
    key, equals, path = value.partition("=")
    file = Path(path if equals else value)
    if not file.is_file():
        raise SystemExit(f"{file} is not there")
    if not file.stat().st_size:
        raise SystemExit(f"{file} is empty")
    return [key if equals else file.name]


def _kubectl(argv: Sequence[str], stdin: str) -> None:
    if "create" in argv and REAL_KUBECTL:
        ask = (REAL_KUBECTL, "--kubeconfig", os.devnull, *argv, "--dry-run=client", "--output=name")
        subprocess.run(ask, check=True, stdout=subprocess.DEVNULL)
    if found := re.search(
        r"jsonpath=?\{\.data\.([a-z-]+)\}", " ".join(argv).replace("jsonpath ", "jsonpath=")
    ):
        print(base64.b64encode(b"admin" if found[1].endswith("user") else b"s3cret").decode())


def _faas_cli(argv: Sequence[str], stdin: str) -> None:
    if argv[0] == "login" and stdin.strip() != "s3cret":
        raise SystemExit("that is not the gateway's password")
    if argv[0] == "up":
        for file in ("stack.yml", "gateway_config.yml", "github.yml"):
            if not Path(file).is_file():
                raise SystemExit(f"{file} is not there")


def _docker(argv: Sequence[str], stdin: str) -> None:
    if argv[:2] == ["swarm", "join-token"]:
        print("SWMTKN-1-token")


def _make(argv: Sequence[str], stdin: str) -> None:
    from tests.commands import targets

    if unknown := set(argv) - targets():
        raise SystemExit(f"make has no {', '.join(unknown)}")


def _htpasswd(argv: Sequence[str], stdin: str) -> None:
    """Where the package apache2-utils is not: of its -iB [-c] FILE NAME, a line without a hash of it."""
    assert argv[0] == "-iB"
    create, (file, name) = "-c" in argv, argv[-2:]
    with Path(file).open("w" if create else "a") as out:
        out.write(f"{name}:$2y$05$\n")


_ANSWERS: Mapping[str, Callable[[Sequence[str], str], None]] = {
    "kubectl": _kubectl,
    "faas-cli": _faas_cli,
    "docker": _docker,
    "make": _make,
    "htpasswd": _htpasswd,
}


def _python(argv: Sequence[str]) -> None:
    """`-m local COMMAND`: what needs a cloud is looked at as to its form; the rest runs."""
    from tests.commands import problem_with

    assert list(argv[:2]) == ["-m", "local"], argv
    if problem := problem_with(argv[2:]):
        raise SystemExit(problem)
    for option, value in options(argv):
        if option.endswith("-file") and not Path(value).is_file():
            raise SystemExit(f"{value} is not there")
    note("python", argv)
    if argv[2] == "github-app":
        _register_app(argv)


def _register_app(argv: Sequence[str]) -> None:
    """With somebody at a browser; GitHub is the one of the setting github_api_url."""
    from tests.contract.registration import register

    folder = Path.cwd()
    command = (sys.executable, *argv)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder) as process:
        assert process.stdout
        page = re.match(r"Open (\S+)", process.stdout.readline())
        assert page
        register(page[1]).raise_for_status()
        print(process.stdout.read())
        if process.wait(30):
            raise SystemExit("github-app failed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
