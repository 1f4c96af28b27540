"""Whether of-builder, BuildKit and the registry do what a push needs: a small image is really built."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .sdk import checkup, naming, secrets
from .sdk.builder import Builder
from .sdk.context import BuildConfig, write_tar
from .sdk.errors import Upstream
from .sdk.settings import Settings
from .sdk.shrinkwrap import Context, Entry

BUILD_SECONDS = 60
# Nobody's: owners and repositories have other ids.
NOBODY = 0


def neighbours(settings: Settings) -> Mapping[str, str]:
    """What is wrong with each, empty if nothing is."""
    found = {"of-builder": checkup.problem(lambda: Trial.of(settings).ready())}
    if not found["of-builder"]:
        found["registry push"] = checkup.problem(lambda: Trial.of(settings).push())
        found["registry pull"] = checkup.problem(lambda: Trial.of(settings).pull())
    return found


@dataclass(frozen=True)
class Trial:
    """An image of one small file, another one each day so that something is pushed."""

    builder: Builder
    repository: str

    @classmethod
    def of(cls, settings: Settings) -> Trial:
        builder = Builder(settings.builder_url, secrets.read("builder-secret", settings.secret_mount_path))
        registry = settings.push_repository_url
        return cls(builder, naming.image_repository(registry, settings.git_scm, NOBODY, NOBODY, "doctor"))

    def ready(self) -> None:
        self.builder.ready()

    def push(self) -> None:
        context = Context("doctor")
        with tempfile.TemporaryDirectory(prefix="doctor-") as work:
            day = time.strftime("%Y-%m-%d", time.gmtime())
            for name, content in (("Dockerfile", "FROM scratch\nCOPY day /\n"), ("day", day)):
                file = Path(work) / name
                file.write_text(content)
                context.add(name, Entry(str(file), 0o644, len(content), is_folder=False))
            config = BuildConfig(f"{self.repository}:check")
            tar = write_tar(context, Path(work) / "tar", self.builder.keys, config)
            with tar.path.open("rb") as body:
                self.builder.build(body, tar.signature, BUILD_SECONDS)

    def pull(self) -> None:
        """The registry still has what was just pushed."""
        if not self.builder.digest(self.repository, tag="check"):
            raise Upstream("the registry does not have what was just pushed")
