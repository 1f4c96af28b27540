"""One function of a stack, from the checked-out tree to the signed tar that buildshiprun takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .sdk import messages, naming
from .sdk.context import BuildConfig, SignedTar, write_tar
from .sdk.messages import Push, Shipment, Template
from .sdk.plan import plan
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.stack import Configuration, Function
from .sources import Language, Sources


@dataclass(frozen=True)
class Tree:
    """A checked-out commit of a push, and what its functions are built with."""

    push: Push
    sha: str
    folder: Path
    configuration: Configuration
    sources: Sources
    sealed: Mapping[str, str] = field(default_factory=dict)


def pack(function: Function, tree: Tree, path: Path, settings: Settings, keys: Keys) -> SignedTar:
    """Write the tar of `function` to the new file `path`. Raises what the author has to mend."""
    languages: list[Language] = []

    def folder(function: Function) -> Path | None:
        languages.extend(filter(None, [tree.sources.language(function)]))
        return languages[0].folder if languages else None

    owner, copy = tree.push.repository.owner.login, tree.configuration.copy
    planned = plan(function, owner, tree.folder, copy, settings, folder)
    function, template = planned.function, planned.template
    config = BuildConfig(
        image=f"{repository(function, tree.push, settings)}:{tree.sha}",
        build_args=planned.build_args,
        epoch=settings.build_epoch,
    )
    described = replace(
        function,
        fprocess=function.fprocess or (template.fprocess if template else ""),
    )

    def describe(digest: str) -> bytes:
        push, origin = tree.push, languages[0].origin if languages else Template()
        sealed = {name: tree.sealed[name] for name in function.secrets if name in tree.sealed}
        shipment = Shipment(
            push.scm, push.delivery, push.repository, push.ref, tree.sha, described, digest, origin, sealed
        )
        return messages.seal("buildshiprun", shipment)

    return write_tar(planned.context, path, keys, config, describe)


def repository(function: Function, push: Push, settings: Settings) -> str:
    """Where of-builder pushes the function's images."""
    owner, repo = push.repository.owner.id, push.repository.id
    return naming.image_repository(settings.push_repository_url, push.scm, owner, repo, function.name)
