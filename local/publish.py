"""Our own functions, from stack.yml into the cluster, as an operator would bring them there:
built by of-builder with faas-cli's protocol, deployed through the gateway's REST API."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdk import secrets, stack, templates
from sdk.builder import Builder
from sdk.context import BuildConfig, write_tar
from sdk.errors import CloudError
from sdk.shrinkwrap import shrinkwrap
from sdk.stack import Function

from . import checks
from .errors import CommandError
from .images import ROOT
from .state import APP_KEY, SECRETS, State
from .steps import until

BUILD_SECONDS = 300
READY_SECONDS = 60
PLATFORM = "openfaas-cloud"


@dataclass(frozen=True)
class Publisher:
    """`base` is the Python base image that every function is built on."""

    state: State
    base: str

    def secrets(self) -> None:
        """The platform's secrets, as `faas-cli secret create` would make them.

        The gateway tells no values, and an update rolls the functions that use the secret: the state
        remembers which values the cluster has.
        """
        gateway, marker = self.state.gateway, self.state.cluster_marker
        values = {name: self.state.secret_file(name).read_text() for name in SECRETS}
        digest = hashlib.sha256(repr(values).encode()).hexdigest()
        same = marker.exists() and marker.read_text() == digest
        there = gateway.secret_names()
        for name, value in values.items():
            if not same or name not in there:
                gateway.set_secret(name, value)
        # It has one value from when it is turned on until nothing is left of it.
        if self.state.plays_github and APP_KEY not in there:
            gateway.set_secret(APP_KEY, self.state.secret_file(APP_KEY).read_text())
        marker.write_text(digest)

    def functions(self) -> None:
        """Build and deploy every function of stack.yml; returns once all are ready."""
        names = {"REPO": f"{self.state.registry}/{PLATFORM}"}
        found = stack.parse((ROOT / "stack.yml").read_bytes(), names)
        with ThreadPoolExecutor(len(found.functions)) as pool:
            list(pool.map(lambda function: self._function(function, found), found.functions))

    def _function(self, function: Function, found: stack.Stack) -> None:
        try:
            image = self.built(function, found)
            self.state.gateway.deploy(self._spec(function, image))
        except CloudError as error:
            log = "\n".join(error.details.get("log", ()))
            raise CommandError(f"{function.name}: {error.message}\n{log}".rstrip()) from None
        until(lambda: self._is_ready(function.name), seconds=READY_SECONDS, what=f"{function.name} ready")

    def _is_ready(self, name: str) -> bool:
        status = self.state.gateway.get(name)
        if status and status.failure:
            raise CommandError(f"{name} does not start: {status.failure}; see `python -m local logs {name}`")
        return bool(status and status.available_replicas)

    def built(self, function: Function, found: stack.Stack) -> str:
        """The image by digest: the one that is there for this context, or a new one."""
        keys = secrets.read("builder-secret", str(self.state.secrets_folder))
        builder = Builder(self.state.builder_url, keys)
        languages = templates.languages(Path(__file__).parent)
        config = BuildConfig(function.image, {**function.build_args, "PYTHON_IMAGE": self.base})
        with tempfile.TemporaryDirectory() as work:
            tree = Path(work) / "tree"
            for folder in (function.handler, *found.configuration.copy):
                # What Python has compiled here is none of the function's.
                shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
            context = shrinkwrap(function, tree, languages, found.configuration.copy)
            tar = write_tar(context, Path(work) / "context.tar", keys, config)
            repository = function.image.rpartition(":")[0]
            digest = builder.digest(repository, context=tar.digest)
            if not digest:
                with tar.path.open("rb") as body:
                    digest = builder.build(body, tar.signature, BUILD_SECONDS).digest
        return f"{function.image}@{digest}"

    def _spec(self, function: Function, image: str) -> Mapping[str, Any]:
        return {
            "service": function.name,
            "image": image,
            "envProcess": function.fprocess,
            "envVars": {**function.environment, **self._environment(function)},
            "secrets": [*function.secrets, *checks.secrets(function, self.state)],
            "labels": dict(function.labels),
            "annotations": dict(function.annotations),
            "limits": {"memory": function.limits.memory, "cpu": function.limits.cpu},
            "requests": {"memory": function.requests.memory, "cpu": function.requests.cpu},
            "readOnlyRootFilesystem": True,
        }

    def _environment(self, function: Function) -> Mapping[str, str]:
        """The environment files that are there, then what this machine's cloud has otherwise."""
        merged: dict[str, str] = {}
        for name in function.environment_file:
            if (ROOT / name).exists():
                merged.update(stack.parse_environment_file((ROOT / name).read_bytes()))
        return {
            **merged,
            "gateway_public_url": self.state.gateway_url,
            "push_repository_url": self.state.registry,
            "repository_url": self.state.registry,
            "git_scm": "local",
            "allowed_git_hosts": "http://git-server:8080",
            "custom_templates": "http://git-server:8080/openfaas-cloud/templates.git",
            "build_args": f"PYTHON_IMAGE={self.base}",
            **checks.settings(function, self.state),
        }
