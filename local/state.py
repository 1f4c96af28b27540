"""What the cloud keeps on this machine outside the engine: ports and credentials.

One place per machine (or per user, without root), not in the checkout: `up` from any checkout takes
the running cloud over, and `down` removes it.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from sdk import secrets as stored
from sdk.gateway import Gateway
from sdk.settings import read, setting

SECRETS = (
    "basic-auth-user",
    "basic-auth-password",
    "builder-readers",
    "builder-secret",
    "github-webhook-secret",
    "link-secret",
    "payload-secret",
    "seal-key",
)

# The key of the App that `up --github` plays, while it does (checks.py). Real Apps' keys are none of ours.
APP_KEY = "private-key"

# of-builder's own: no function has them.
BUILDER_SECRETS = ("builder-clients", "builder-private-key")


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1; set one in the environment of the first `up` to change it."""

    gateway_port: int = setting(8080, "the gateway: functions and the REST API")
    builder_port: int = setting(8081, "of-builder")
    git_port: int = setting(8082, "the git server, for pushes")
    registry_port: int = setting(5000, "the registry")
    github_port: int = setting(8083, "the play of GitHub's checks, with `up --github`")


@dataclass(frozen=True)
class State:
    folder: Path

    @classmethod
    def here(cls) -> State:
        """Root's is the machine's; another user's is in that user's home."""
        if os.geteuid() == 0:
            return cls(Path("/var/lib/openfaas-cloud"))
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return cls(Path(home) / "openfaas-cloud")

    @property
    def exists(self) -> bool:
        """Whether an `up` came as far as to start the containers."""
        return self._ports_file.is_file()

    @property
    def _ports_file(self) -> Path:
        return self.folder / "ports.json"

    def create(self) -> None:
        """The credentials; what is there stays as it is."""
        self.secrets_folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in (*SECRETS, *BUILDER_SECRETS):
            if not self.secret_file(name).exists():
                self._write(self.secret_file(name), _made(name))

    def keep_ports(self) -> None:
        """The containers run, so the ports stay; until then, the environment of each `up` decides."""
        if not self.exists:
            self._write(self._ports_file, msgspec.json.encode(self.ports))

    def move_github(self) -> None:
        """What `up --github` starts may come late: its port is as the environment has it each time."""
        if self.exists and "github_port" in os.environ:
            moved = replace(self.ports, github_port=read(Ports).github_port)
            new = self.folder / "ports.json.new"
            new.unlink(missing_ok=True)
            self._write(new, msgspec.json.encode(moved))
            new.replace(self._ports_file)

    def restore(self, files: Mapping[str, bytes]) -> None:
        """What a backup holds beside the volumes, by its paths there (archive.py). The ports come last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for folder in (
            self.secrets_folder,
            *(self.restored_folder / kind for kind in ("secrets", "functions")),
        ):
            folder.mkdir(parents=True)
        for path, content in files.items():
            kind, _, name = path.partition("/")
            if kind == "credentials":
                self._write(self.secret_file(name), content)
            elif name:
                self._write(self.restored_folder / kind / name, content)
        self._write(self._ports_file, files["ports.json"])

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def ports(self) -> Ports:
        if not self.exists:
            return read(Ports)
        return msgspec.json.decode(self._ports_file.read_bytes(), type=Ports)

    @property
    def secrets_folder(self) -> Path:
        return self.folder / "secrets"

    def secret_file(self, name: str) -> Path:
        return self.secrets_folder / name

    @property
    def restored_folder(self) -> Path:
        """Secrets and functions of a backup that are not yet in the cluster."""
        return self.folder / "restored"

    @property
    def cluster_marker(self) -> Path:
        """The digest of the credentials that the cluster has."""
        return self.folder / "cluster"

    @property
    def github_marker(self) -> Path:
        """There as long as GitHub's checks are played, from `up --github` to `up --no-github`."""
        return self.folder / "github"

    @property
    def plays_github(self) -> bool:
        return self.github_marker.exists()

    @property
    def engine_marker(self) -> Path:
        """There while a dockerd that we started runs: `down` stops that one, and no other."""
        return self.folder / "dockerd.pid"

    @property
    def swarm_marker(self) -> Path:
        """There if we made this machine a Swarm: `down` leaves that one, and no other."""
        return self.folder / "swarm"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway_port}"

    @property
    def gateway(self) -> Gateway:
        """A client with the operator's credentials."""
        user, password = (
            stored.read(name, str(self.secrets_folder)).signing.decode()
            for name in ("basic-auth-user", "basic-auth-password")
        )
        return Gateway(self.gateway_url, (user, password))

    @property
    def builder_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.builder_port}"

    @property
    def git_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.git_port}"

    @property
    def platform_secrets(self) -> tuple[str, ...]:
        """Those in the cluster that are the platform's own."""
        return (*SECRETS, APP_KEY) if self.secret_file(APP_KEY).exists() else SECRETS

    @property
    def checks_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.github_port}"

    @property
    def registry(self) -> str:
        return f"127.0.0.1:{self.ports.registry_port}"

    def write_secret(self, name: str, content: bytes) -> None:
        """One that is not there yet."""
        self._write(self.secret_file(name), content)

    def _write(self, file: Path, content: bytes) -> None:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)


def _made(name: str) -> bytes:
    if name == "basic-auth-user":
        return b"admin"
    if name in ("builder-private-key", "seal-key"):
        return base64.b64encode(secrets.token_bytes(32))
    return secrets.token_hex(24).encode()
