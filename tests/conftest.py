"""What all tests share: the staged functions, the data, and a work folder for secrets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from local.staging import stage

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"

# Real GitHub payloads and OpenFaaS's API description stand beside a maintainer's checkout only.
SHARED = ROOT.parent / "shared"

stage()

# How fast an example is says more about the machine than about us.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# `make fuzz`: the same properties with very many examples.
settings.register_profile("fuzz", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def rotating(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that was changed is read at the next look, not after a moment; by every copy of the sdk."""
    for name, module in list(sys.modules.items()):
        if name.endswith("sdk.secrets"):
            monkeypatch.setattr(module, "LOOK_SECONDS", 1e-9)


@pytest.fixture
def secret_folder(tmp_path: Path) -> Path:
    """A folder of secret files, as a cluster mounts them."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name, value in {
        "github-webhook-secret": "webhook",
        "payload-secret": "payload",
        "builder-readers": "readers",
        "builder-secret": "builder",
        "link-secret": "link",
        "basic-auth-user": "admin",
        "basic-auth-password": "s3cret",
    }.items():
        (folder / name).write_text(f"{value}\n")
    return folder


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("GitHub's examples and OpenFaaS's API description are not part of a clone")
    return SHARED
