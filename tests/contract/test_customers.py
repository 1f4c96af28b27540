"""The list of customers where it is consulted: in gh-push after the signature, and before git-tar deploys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import gh_push.handler
import git_tar.handler
from gh_push.sdk.customers import Customers
from git_tar.sdk.customers import Customers as GitTarCustomers
from git_tar.sdk.messages import Installation

from .fakes import Answer, FakeGateway, Server, running
from .github import INSTALLATION, FakeGitHub
from .test_gh_push import call
from .test_pipeline import Cloud, cloud, files, github

__all__ = ["cloud", "github"]  # fixtures


class FakeList(Server):
    content: bytes = b"Alice\n"
    status: int = 200

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return self.status, self.content


@pytest.fixture
def customers(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeList]:
    fake = FakeList()
    monkeypatch.setenv("validate_customers", "true")
    monkeypatch.setenv("customers_url", f"{fake.url}/CUSTOMERS")
    monkeypatch.setattr(gh_push.handler, "CUSTOMERS", Customers())
    monkeypatch.setattr(git_tar.handler, "CUSTOMERS", GitTarCustomers())
    with running(fake):
        yield fake


def test_a_customers_push_is_queued_and_anothers_refused(gateway: FakeGateway, customers: FakeList) -> None:
    assert call()[0] == 202
    customers.content = b"bob\n"
    gh_push.handler.CUSTOMERS = Customers()
    status, answer = call()
    assert (status, answer["error"]["code"]) == (403, "refused")
    assert "alice is not on the list of customers" in answer["error"]["message"]
    assert len(gateway.queued) == 1


def test_the_list_is_not_looked_at_before_the_signature_is_good(
    gateway: FakeGateway, customers: FakeList
) -> None:
    """Flaw 6: the list was fetched, and audited, for whoever asked."""
    assert call(key=b"guess")[0] == 401
    assert call(b"{}", "ping")[0] == 200
    assert not customers.calls


@pytest.mark.parametrize(("status", "content"), [(404, b"alice"), (200, b"<html>alice</html>"), (200, b"")])
def test_without_a_list_nothing_is_queued_and_the_operator_is_told(
    status: int, content: bytes, gateway: FakeGateway, customers: FakeList
) -> None:
    customers.status, customers.content = status, content
    told, answer = call()
    assert (told, answer["error"]["code"]) == (500, "misconfigured")
    assert "customers" in answer["error"]["message"]
    assert not gateway.queued


def test_a_list_in_a_secret_needs_no_url(
    gateway: FakeGateway, customers: FakeList, secret_folder: Path
) -> None:
    (secret_folder / "customers").write_text(" ALICE \n\n")
    assert call()[0] == 202
    assert not customers.calls


def test_a_push_that_was_queued_before_the_list_changed_is_not_deployed(
    cloud: Cloud, customers: FakeList
) -> None:
    sha = cloud.origin.commit(files("one"))
    assert cloud.push(sha)[0] == 200
    before = cloud.live
    customers.content = b"bob\n"
    git_tar.handler.CUSTOMERS = GitTarCustomers()
    status, answer = cloud.push(cloud.origin.commit({"one/handler.py": "# newer\n"}))
    assert (status, answer["error"]["code"]) == (403, "refused")
    assert cloud.live == before, "what is deployed stays"


def test_a_repository_that_was_transferred_is_its_new_owners(
    cloud: Cloud, github: FakeGitHub, customers: FakeList
) -> None:
    github.full_name, github.owner_id = "bob/moved", 9
    status, answer = cloud.push(cloud.origin.commit(files("one")), installation=Installation(INSTALLATION))
    assert status == 403
    assert "bob is not on the list" in answer["error"]["message"]


def test_a_list_that_git_tar_cannot_have_now_brings_the_push_back(cloud: Cloud, customers: FakeList) -> None:
    customers.status = 503
    assert cloud.push(cloud.origin.commit(files("one")))[0] == 503
    assert not cloud.live
