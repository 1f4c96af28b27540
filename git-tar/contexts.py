"""One function of a stack, from the checked-out tree to the signed tar that buildshiprun takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .sdk import messages, naming, policy, stack, templates
from .sdk.context import BuildConfig, SignedTar, write_tar
from .sdk.errors import Failed, Malformed
from .sdk.messages import Push, Shipment, Template
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.shrinkwrap import Limits, inside, shrinkwrap, template_of
from .sdk.stack import Configuration, Function
from .sources import Sources


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
    naming.service_name(tree.push.repository.owner.login, function.name)
    function = replace(function, environment=environment(function, tree.folder))
    function = policy.apply(function, settings)
    language = tree.sources.language(function)
    folders = {function.lang: language.folder} if language else {}
    limits = Limits(settings.context_limit_mb * 1024**2, settings.context_files_limit)
    context = shrinkwrap(function, tree.folder, folders, tree.configuration.copy, limits)
    template = template_of(function, folders)
    config = BuildConfig(
        image=f"{repository(function, tree.push, settings)}:{tree.sha}",
        build_args=build_args(function, template, settings),
        epoch=settings.build_epoch,
    )
    described = replace(
        function,
        fprocess=function.fprocess or (template.fprocess if template else ""),
    )

    def describe(digest: str) -> bytes:
        push, origin = tree.push, language.origin if language else Template()
        sealed = {name: tree.sealed[name] for name in function.secrets if name in tree.sealed}
        shipment = Shipment(
            push.scm, push.delivery, push.repository, push.ref, tree.sha, described, digest, origin, sealed
        )
        return messages.seal("buildshiprun", shipment)

    return write_tar(context, path, keys, config, describe)


def repository(function: Function, push: Push, settings: Settings) -> str:
    """Where of-builder pushes the function's images."""
    owner, repo = push.repository.owner.id, push.repository.id
    return naming.image_repository(settings.push_repository_url, push.scm, owner, repo, function.name)


def build_args(
    function: Function, template: templates.Template | None, settings: Settings
) -> Mapping[str, str]:
    """The author's, the build options' packages, and last the operator's."""
    packages = templates.additional_packages(function, template)
    options = {"ADDITIONAL_PACKAGE": packages} if packages else {}
    return {**function.build_args, **options, **settings.build_args}


def environment(function: Function, folder: Path) -> Mapping[str, str]:
    """The function's variables: each `environment_file`, in order, over `environment`, as faas-cli."""
    merged = dict(function.environment)
    for name in function.environment_file:
        file = inside(folder.resolve(), name, f"{function.name}: environment_file")
        if not file.is_file() or file.stat().st_size > stack.SIZE_LIMIT:
            raise Failed(
                f"{function.name}: environment_file {name!r} is no file of the repository, or has more than "
                f"{stack.SIZE_LIMIT} bytes"
            )
        try:
            merged.update(stack.parse_environment_file(file.read_bytes()))
        except Malformed as error:
            raise Failed(f"{function.name}: {name}: {error.message}") from None
    return merged
