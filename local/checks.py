"""`up --github`: what turns the play of GitHub's checks on and off (local/github), and what it needs.

Without it nothing is there of it: neither a container, nor a setting or a secret of a function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

import docker
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from docker.models.secrets import Secret

from sdk import stack
from sdk.stack import Function

from . import containers, images
from .errors import CommandError
from .gateway.secrets import NAME as SECRET
from .github import APP_ID
from .state import APP_KEY, State
from .steps import removed, step

# Who tells github-status, and it itself. Not reconcile: that would ask the App where it is installed.
_TELLING = ("gh-push", "git-tar", "buildshiprun", "github-status")
_SHOWS = "github-status"
_LAST_CALL_SECONDS = 120  # so long a call of github-status may take, which has the key
_NAME = "openfaas-cloud-github"  # of the container, and of its volume


def choose(client: docker.DockerClient, state: State, wanted: bool | None) -> None:
    """Turn it on or off; without a choice it stays as it is. What was on goes with `remove_left`."""
    if wanted is False:
        state.github_marker.unlink(missing_ok=True)
    elif wanted or state.plays_github:
        _check_that_no_other_app_is_there()
        if wanted:
            state.move_github()
        if not state.secret_file(APP_KEY).exists():
            if _in_cluster(client):
                raise CommandError(
                    "the cluster has a secret private-key, which would be replaced: remove it before "
                    "`up --github`"
                )
            state.write_secret(APP_KEY, made_key())
        state.github_marker.touch()


def settings(function: Function, state: State) -> Mapping[str, str]:
    """What `function` needs in its environment to tell, or to show."""
    if not state.plays_github or function.name not in _TELLING:
        return {}
    return {"github_app_id": APP_ID, "github_api_url": "http://github:8080"}


def secrets(function: Function, state: State) -> tuple[str, ...]:
    return (APP_KEY,) if state.plays_github and function.name == _SHOWS else ()


def remove_left(client: docker.DockerClient, state: State) -> None:
    """What is left of it once it is off, and no function uses it; the key is the last to go."""
    if state.plays_github or not state.secret_file(APP_KEY).exists():
        return
    with step("remove the play of GitHub's checks"):
        for secret in _in_cluster(client):
            removed(partial(client.api.remove_secret, str(secret.id)), seconds=_LAST_CALL_SECONDS)
        if container := containers.find(client, _NAME):
            container.remove(force=True, v=True)
        with suppress(docker.errors.NotFound):
            removed(client.volumes.get(_NAME).remove)
        state.secret_file(APP_KEY).unlink()


def _in_cluster(client: docker.DockerClient) -> Sequence[Secret]:
    return client.secrets.list(filters={"label": f"{SECRET}={APP_KEY}"})


def _check_that_no_other_app_is_there() -> None:
    """Its key would be the secret that the play's has to be."""
    found = stack.parse((images.ROOT / "stack.yml").read_bytes())
    if any(APP_KEY in function.secrets for function in found.functions):
        raise CommandError(
            "stack.yml gives functions the private-key of a GitHub App, so that GitHub shows the checks: "
            "make its lines comments again, or `.venv/bin/python -m local up --no-github`"
        )


def made_key() -> bytes:
    """A new App's private key, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())
