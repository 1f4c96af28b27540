"""`make bench`'s arithmetic: turns, medians, ratios, what is written and what is compared."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from bench import cli, clients, cloud, growth, measure, results
from bench.growth import Point
from bench.measure import Measure, Row, Samples, interleaved
from bench.repositories import BRANCH, committed, git
from sdk.stack import parse
from tests.contract.fakes import Answer, Server, running

NAMES = (
    "push_to_live monorepo_one_of_20 first_deploy_20 revert config_only nothing_changed fetch_large "
    "fetch_large_bytes context_50mb context_50mb_files rss_git_tar rss_of_builder rss_buildshiprun webhook "
    "webhook_p99 webhook_8 collect_1000 burst gateway_proxy"
).split()


def some(samples: Samples, goal: float = 1.5, name: str = "some") -> Measure:
    return Measure(name, "what", "the floor", "s", goal, lambda repeat: samples)


def shown(table: object) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


SAMPLES = Samples((3.0, 1.0, 2.0, 40.0, 2.0), (1.0, 2.0, 1.0, 1.0, 1.5), "a note")
ROW = measure.row(some(SAMPLES), SAMPLES)


def test_a_row_has_medians_so_that_one_bad_turn_decides_nothing() -> None:
    assert (ROW.ours, ROW.floor, ROW.ratio) == (2.0, 1.0, 2.0)
    assert (ROW.n, ROW.median, ROW.min, ROW.max) == (5, 2.0, 1.0, 40.0)
    assert (ROW.floor_min, ROW.floor_max, ROW.goal, ROW.note) == (1.0, 2.0, 1.5, "a note")


def test_ours_and_the_floor_take_turns_and_the_first_counts_for_nothing() -> None:
    order: list[str] = []

    def turn(who: str) -> float:
        order.append(who)
        return float(len(order))

    samples = interleaved(2, lambda: turn("ours"), lambda: turn("floor"))
    assert order == ["ours", "floor"] * 3
    assert samples == Samples((3.0, 5.0), (4.0, 6.0))


@pytest.mark.parametrize(("part", "found"), [(0.5, 51.0), (0.99, 100.0), (1.0, 100.0), (0.0, 1.0)])
def test_a_quantile(part: float, found: float) -> None:
    assert measure.quantile([float(number) for number in range(100, 0, -1)], part) == found


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "new" / "bench.json"
    measure.save([ROW], file)
    assert measure.load(file) == [ROW]


def test_changes_are_of_rows_that_both_runs_have() -> None:
    other = measure.row(some(SAMPLES, name="other"), SAMPLES)
    faster = measure.row(some(SAMPLES), Samples((1.0,), (1.0,)))
    assert measure.changes([faster, other], [ROW]) == {"some": -0.5}


def test_the_table_marks_what_is_over_its_goal() -> None:
    text = shown(measure.table([ROW, measure.row(some(SAMPLES, goal=2), SAMPLES)], {"some": -0.25}))
    assert "2.00 ✗" in text
    assert "2.00 ✓" in text
    assert "-25%" in text
    assert "change" not in shown(measure.table([ROW]))


@pytest.mark.parametrize(
    ("number", "text"), [(0.00051, "0.00051"), (1.234, "1.23"), (51.26, "51.3"), (100_812.4, "100,812")]
)
def test_a_figure_has_three_digits_that_count(number: float, text: str) -> None:
    assert measure.figure(number) == text


POINTS = [Point("a", "files", size, 1 + 0.1 * size) for size in (1, 2, 4, 8)]


def test_a_slope_is_what_one_more_costs() -> None:
    slope, rest = growth.slopes(POINTS)["a"]
    assert (slope, rest) == pytest.approx((0.1, 1.0))
    assert "1, 2, 4, 8 files" in growth.markdown(POINTS)
    assert "100 ms, from 1 s on" in shown(growth.table(POINTS))


def test_the_page_says_what_it_ran_on_and_what_is_over_its_goal() -> None:
    page = results.page([ROW], {"some": some(SAMPLES)}, POINTS)
    assert "| some | 2 | 1 | s | 2.00 **over** | 1.5 | 5 |" in page
    assert "GiB of memory" in page
    assert "## How cost grows" in page
    assert "## How cost grows" not in results.page([ROW], {"some": some(SAMPLES)}, [])


def test_every_row_that_was_promised_can_be_asked_for_by_its_name() -> None:
    assert set(NAMES) <= set(cli.MEASURES)
    told = CliRunner().invoke(cli.main, ["--help"]).output
    assert all(f" {name} " in told for name in [*cli.MEASURES, growth.NAME])


def test_a_run_measures_what_is_named_and_keeps_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def take(repeat: int) -> Samples:
        taken.append(repeat)
        return SAMPLES

    monkeypatch.setattr(cli, "MEASURES", {"webhook": Measure("webhook", "", "", "s", 1.6, take)})
    old, new, page = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "page.md"
    measure.save([measure.row(some(SAMPLES, name="webhook"), Samples((4.0,), (1.0,)))], old)
    given = ["webhook", "--repeat", "7", "--out", str(new), "--compare", str(old), "--results", str(page)]
    done = CliRunner().invoke(cli.main, given, catch_exceptions=False)
    assert done.exit_code == 0
    assert taken == [7]
    assert "-50%" in done.output
    [row] = measure.load(new)
    assert isinstance(row, Row)
    assert row.ratio == 2
    assert "| webhook |" in page.read_text()


def test_an_unknown_name_is_told() -> None:
    done = CliRunner().invoke(cli.main, ["nothing"])
    assert done.exit_code == 2
    assert "push_to_live" in done.output


def test_the_stacks_that_are_pushed_are_stacks() -> None:
    found = parse(cloud.stack(["one", "two"], " 7").encode()).functions
    assert [function.name for function in found] == ["one", "two"]
    assert found[0].environment == {"VALUE": " 7"}
    names: dict[str, Any] = {}
    exec(cloud.handler("it's"), names)
    assert names["handle"](None, None)["body"] == "it's"


def test_commits_are_made_one_upon_the_other(tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git("init", "--quiet", "--bare", bare)
    committed(bare, [{"a": "1"}, {"b": b"\x00"}])
    committed(bare, [{"a": "2"}])
    assert git(f"--git-dir={bare}", "rev-list", "--count", BRANCH) == "3"
    assert git(f"--git-dir={bare}", "show", f"{BRANCH}:a") == "2"
    assert git(f"--git-dir={bare}", "ls-tree", "--name-only", BRANCH).split() == ["a", "b"]


def test_a_request_is_sent_whole_and_its_answer_read_to_the_end() -> None:
    class Echo(Server):
        def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            return 202, body * 3

    echo = Echo()
    with running(echo):
        port = int(echo.url.rpartition(":")[2])
        whole = clients.request("POST", "/x", {"X-Mine": "1"}, b"y" * 100_000)
        assert clients.pace(port, whole, 202, clients=2, times=3) > 0
        with pytest.raises(AssertionError, match="answered 202, not 200"):
            clients.pace(port, whole, 200, clients=1, times=1)
    assert len(echo.calls) == 7
    assert {(path, headers["X-Mine"], len(body)) for _, path, headers, body in echo.calls} == {
        ("/x", "1", 100_000)
    }
