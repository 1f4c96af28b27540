"""Function repositories as authors have them, through `python -m local stack` and `shrinkwrap`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from local.cli import main
from tests.conftest import DATA

REPOSITORIES = DATA / "repositories"
PYTHON = {"Dockerfile", "template.yml", "index.py", "function/handler.py"}
CONTEXTS = {
    "languages": {
        "python": {*PYTHON, "function/requirements.txt"},
        "node": {"Dockerfile", "template.yml", "index.js", "function/handler.js"},
        "go": {"Dockerfile", "template.yml", "main.go", "go.mod", "src/handler/handler.go"},
        "web": {"Dockerfile", "index.html"},
        "script": {"Dockerfile", "template.yml", "function/handler.sh", "function/words.sh"},
    },
    "monorepo": {
        "orders": {*PYTHON, "function/shared.py", "function/libs/common/__init__.py", "function/VERSION"},
        "users": {*PYTHON, "function/docs/README", "function/libs/common/__init__.py", "function/VERSION"},
    },
    "unicode": {
        "hello": {
            *PYTHON,
            "function/a b.txt",
            "function/-n",
            "function/run.sh",
            "function/данные/世界.txt",
        },
    },
}


@pytest.fixture(autouse=True)
def dockerfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the operator's settings, which the checks take from the environment, a repository needs this."""
    monkeypatch.setenv("enable_dockerfile_lang", "true")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def shrinkwrap(repository: Path, out: Path) -> Result:
    return run("shrinkwrap", repository, "--out", out, "--templates", DATA / "templates")


@pytest.mark.parametrize("name", sorted(CONTEXTS))
def test_every_function_gets_its_context(name: str, tmp_path: Path) -> None:
    done = shrinkwrap(REPOSITORIES / name, tmp_path)
    assert (done.exit_code, done.output) == (0, "")
    found = {
        folder.name: {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in tmp_path.iterdir()
    }
    assert found == CONTEXTS[name]
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_executable_files_stay_so_and_others_do_not_become_so(tmp_path: Path) -> None:
    shrinkwrap(REPOSITORIES / "languages", tmp_path)
    modes = {
        name: (tmp_path / "script" / "function" / name).stat().st_mode for name in ("handler.sh", "words.sh")
    }
    assert (modes["handler.sh"] & 0o111, modes["words.sh"] & 0o111) == (0o111, 0)


def test_a_large_file_is_copied_whole(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORIES / "languages", repository)
    (repository / "web" / "video.bin").write_bytes(bytes(range(256)) * 4 * 40 * 1024)
    assert shrinkwrap(repository, tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "web" / "video.bin").stat().st_size == 40 * 1024**2


def test_a_function_that_fails_is_named_and_the_others_are_written(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORIES / "languages", repository)
    shutil.rmtree(repository / "node")
    (repository / "web" / "leak").symlink_to("/etc/passwd")
    done = shrinkwrap(repository, tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "node: handler './node' is not a folder of the repository",
        "web: 'leak' leaves the repository",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"python", "go", "script"}


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    shrinkwrap(REPOSITORIES / "unicode", tmp_path)
    (tmp_path / "hello" / "mine").touch()
    done = shrinkwrap(REPOSITORIES / "unicode", tmp_path)
    assert (done.exit_code, "is there already: remove it, or choose another --out" in done.stderr) == (
        1,
        True,
    )
    assert (tmp_path / "hello" / "mine").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, ["there is no stack.yml at the top"]),
        ("functions: [", ["stack.yml: line 1"]),
        ("functions: {a: []}", ["stack.yml: provider.name", "stack.yml: line 1: functions.a"]),
    ],
)
def test_a_stack_that_cannot_be_read_writes_nothing(
    text: str | None, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "repository").mkdir()
    if text:
        (tmp_path / "repository" / "stack.yml").write_text(text)
    done = run("shrinkwrap", tmp_path / "repository", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert [line.startswith(start) for line, start in zip(done.stderr.splitlines(), said, strict=True)]
    assert not (tmp_path / "out").exists()


def test_our_own_templates_are_taken_without_others(tmp_path: Path) -> None:
    done = run("shrinkwrap", DATA.parent.parent / "examples" / "hello-python", "--out", tmp_path)
    assert done.exit_code == 0
    assert (tmp_path / "hello" / "function" / "handler.py").is_file()
    unknown = run("shrinkwrap", REPOSITORIES / "languages", "--out", tmp_path)
    assert "node: lang 'node' is unknown; the languages here are: python3-http" in unknown.stderr


def test_templates_may_stand_in_the_folder_itself(tmp_path: Path) -> None:
    folder = DATA / "templates" / "template"
    assert (
        run("shrinkwrap", REPOSITORIES / "unicode", "--out", tmp_path, "--templates", folder).exit_code == 0
    )


def test_a_stack_is_shown_as_json_with_the_names_of_the_file() -> None:
    done = run("stack", REPOSITORIES / "languages" / "stack.yml")
    shown = json.loads(done.stdout)
    assert list(shown["functions"]) == ["python", "node", "go", "web", "script"]
    assert shown["functions"]["python"] == {
        "lang": "python3-http",
        "handler": "./python",
        "image": "python:latest",
        "build_options": ["pg", "dev"],
        "build_args": {"ADDITIONAL_PACKAGE": "curl"},
    }
    assert json.loads(run("stack", REPOSITORIES / "unicode" / "stack.yml").stdout)["functions"]["hello"][
        "environment"
    ] == {"GREETING": "Grüße, 世界 👋"}


def test_variables_are_those_that_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stack.yml"
    file.write_text("provider: {name: openfaas}\nfunctions: {f: {image: '${REPO:-none}/f:${TAG}'}}")
    monkeypatch.setenv("TAG", "from the environment")
    assert '"none/f:"' in run("stack", file).stdout
    assert '"me/f:1=2"' in run("stack", file, "--env", "REPO=me", "--env", "TAG=1=2").stdout
    assert run("stack", file, "--env", "REPO").exit_code == 2


def test_every_problem_of_a_stack_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "stack.yml"
    file.write_text("version: 3\nfunctions:\n  a:\n    image: []\n    secrets: x\n")
    done = run("stack", file)
    assert (done.exit_code, done.stdout) == (1, "")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "provider.name is missing",
        "line 1",
        "line 4",
        "line 5",
    ]


def test_a_file_where_an_extra_path_needs_a_folder_fails(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(REPOSITORIES / "unicode", repository)
    (repository / "fünktion" / "lib").write_text("a file")
    (repository / "lib" / "y").mkdir(parents=True)
    with (repository / "stack.yml").open("a") as file:
        file.write("configuration:\n  copy: [./lib/y]\n")
    done = shrinkwrap(repository, tmp_path / "out")
    assert (done.exit_code, done.stderr.splitlines()) == (
        1,
        ["hello: function/lib is a folder, where the template has a file"],
    )


def test_a_key_that_nothing_reads_is_a_warning_and_no_error(tmp_path: Path) -> None:
    file = tmp_path / "stack.yml"
    file.write_text(
        "provider: {name: openfaas}\nx-common: {}\nfunction: {}\n"
        "functions:\n  f:\n    image: f\n    secret: [db]\n    limits: {memroy: 1}\n    frobnicate: 1\n"
    )
    done = run("stack", file)
    assert json.loads(done.stdout)["functions"]["f"] == {"image": "f"}
    assert done.stderr.splitlines()[:4] == [
        "warning: function is ignored: did you mean functions?",
        "warning: functions.f.secret is ignored: did you mean secrets?",
        "warning: functions.f.limits.memroy is ignored: did you mean memory?",
        "warning: functions.f.frobnicate is ignored: nothing reads such a key",
    ]


def test_of_many_ignored_keys_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    file = tmp_path / "stack.yml"
    keys = "".join(f"z{number}: 1\n" for number in range(25))
    file.write_text(f"provider: {{name: openfaas}}\n{keys}")
    lines = run("stack", file).stderr.splitlines()
    assert (len(lines), lines[20]) == (21, "warning: 5 more keys are ignored")


def test_each_function_tells_all_that_a_push_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "leak").symlink_to("/etc/passwd")
    (tmp_path / "b" / "gone").symlink_to("nothing")
    (tmp_path / "stack.yml").write_text(
        "provider: {name: openfaas}\n"
        "configuration: {copy: [../all]}\n"
        "functions:\n"
        "  A:\n    lang: cobol\n    handler: ../pay\n    environment_file: [env.yml]\n"
        "    limits: {memory: 1Gi, cpu: '2'}\n"
        "  b:\n    lang: python3-http\n    handler: ./b\n    skip_build: true\n    build_options: [x]\n"
    )
    said = {
        "A": (
            "function name 'A' is not allowed",
            "environment_file 'env.yml' is no file",
            "limits.memory '1Gi': from 4Mi to 128Mi (setting function_memory_limit_mb)",
            "limits.cpu '2': at most 500m, in 1/1000 of a CPU (setting function_cpu_limit_milli)",
            "lang 'cobol' is unknown; the languages here are: python3-http",
            "handler '../pay' leaves the repository",
            "configuration.copy '../all' leaves the repository",
        ),
        "b": (
            "skip_build: only what is built",
            "build option 'x' is unknown",
            "'leak' leaves the repository",
            "'gone' is a link to nothing",
            "configuration.copy '../all' leaves the repository",
        ),
    }
    commands = (("stack", tmp_path / "stack.yml"), ("shrinkwrap", tmp_path, "--out", tmp_path / "out"))
    for command in commands:
        done = run(*command)
        assert done.exit_code == 1
        for line, parts in zip(done.stderr.splitlines(), said.values(), strict=True):
            assert not [part for part in parts if part not in line], line
    assert not (tmp_path / "out").exists()


def test_a_template_that_stack_yml_pins_is_no_problem_before_a_push(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "stack.yml").write_text(
        "provider: {name: openfaas}\nfunctions: {f: {lang: go, handler: ./f, build_options: [x]}}\n"
        "configuration: {templates: [{name: go, source: 'https://x.example/t#v1'}]}\n"
    )
    assert run("stack", tmp_path / "stack.yml").exit_code == 0
    done = run("shrinkwrap", tmp_path, "--out", tmp_path / "out")
    assert "f: its template go is fetched by a push alone: give --templates" in done.stderr


def test_the_checks_are_those_of_the_operators_settings_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "stack.yml").write_text(
        "provider: {name: openfaas}\n"
        "functions: {f: {lang: python3-http, handler: ./f, limits: {memory: 1Gi}}}\n"
    )
    assert run("stack", tmp_path / "stack.yml").exit_code == 1
    monkeypatch.setenv("function_memory_limit_mb", "1024")
    assert run("stack", tmp_path / "stack.yml").exit_code == 0
