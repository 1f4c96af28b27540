"""What several threads read into: msgspec crashes if two of them are the first at once."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import pytest

from sdk.kinds import studied
from tests.conftest import ROOT


@dataclass
class One:
    name: str


@dataclass
class Two:
    one: One


def test_a_type_is_studied_once_and_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    studying, met, seen = threading.Lock(), threading.Event(), list[type]()

    def decoder(kind: type) -> None:
        assert studying.acquire(blocking=False), "two at once"
        met.wait(0.1)  # another would come in now
        seen.append(kind)
        studying.release()

    monkeypatch.setattr(msgspec.json, "Decoder", decoder)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(studied, [One, Two, One, Two])) == [One, Two, One, Two]
    assert sorted(seen, key=str) == [One, Two]


@pytest.mark.parametrize("folder", ["sdk", "of-builder/of_builder"])
def test_whatever_threads_read_is_studied_first(folder: str) -> None:
    calls = [
        call
        for path in sorted((ROOT / folder).glob("*.py"))
        for call in re.findall(r"msgspec\.(?:json\.decode|convert)\(.*", path.read_text())
    ]
    assert calls
    typed = [call for call in calls if "type=" in call or ".convert(" in call]
    plain = re.compile(r"studied\(|type=dict\[str, (?:object|Any)\]")
    assert [call for call in typed if not plain.search(call)] == []
