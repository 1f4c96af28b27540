"""Test machines: each with namespaces, a disk and an engine of its own, and a cable to the others.

Nothing of this machine's own network or engine is touched. All of a machine ends with its first process,
which ends with the process that made it, even if that is killed.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from local.steps import until
from tests import packages
from tests.conftest import ROOT

CGROUPS = Path("/sys/fs/cgroup")
_CONFIG = Path("/etc/docker")
_DISKS, _PREFIX = Path("/var/tmp"), "test-machine-"
_NAT, _NAMESERVER = "192.168.127.0/24", "192.168.127.3"
_LAN = "192.168.128"
_DOCKER = '{"features": {"containerd-snapshotter": true}}\n'


def unable() -> str:
    """Why there can be no test machines here; empty if there can."""
    if os.geteuid():
        return "test machines are made by root"
    probe = ("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "true")
    done = subprocess.run(probe, capture_output=True, text=True)
    return f"no namespaces can be made here: {done.stderr.strip()}" if done.returncode else ""


@dataclass
class Machine:
    """`pid` is its first process, as this machine numbers it; `address` is where the others reach it."""

    name: str
    address: str
    folder: Path
    pid: int
    groups: Sequence[Path]
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str, cwd: Path = ROOT) -> list[str]:
        """What runs `arguments` there, in its control groups too."""
        join = "".join(f"echo $$ >{shlex.quote(str(group / 'cgroup.procs'))}; " for group in self.groups)
        enter = f"exec nsenter --target {self.pid} --all --wd={shlex.quote(str(cwd))} -- "
        return ["sh", "-euc", f"{join}{enter}{shlex.join(arguments)}"]

    def start(self, *arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments, cwd=cwd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
        )

    def tried(
        self, *arguments: str, stdin: str = "", cwd: Path = ROOT, seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, cwd=cwd),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            env=self._environment(),
        )

    def run(self, *arguments: str, stdin: str = "", cwd: Path = ROOT, seconds: float = 300) -> str:
        """What it prints; it must succeed."""
        done = self.tried(*arguments, stdin=stdin, cwd=cwd, seconds=seconds)
        assert done.returncode == 0, f"{self.name}: {shlex.join(arguments)}: {done.stdout}"
        return done.stdout

    def local(self, *arguments: str, stdin: str = "", cwd: Path = ROOT, seconds: float = 300) -> str:
        """`python -m local` of the checkout `cwd`."""
        return self.run(sys.executable, "-m", "local", *arguments, stdin=stdin, cwd=cwd, seconds=seconds)

    def _environment(self) -> Mapping[str, str]:
        docker = {"DOCKER_CONFIG": str(self.folder / "docker-client")}
        kept = {name: text for name, text in os.environ.items() if not name.startswith("DOCKER_")}
        return {**kept, **docker, **self.environment}


@contextmanager
def machines(*names: str) -> Iterator[tuple[Machine, ...]]:
    """Machines on one switch, each with a way out to the internet; the switch is in the last of them."""
    _remove_left()
    with ExitStack() as stack:
        made = tuple(
            stack.enter_context(_machine(name, f"{_LAN}.{number}"))
            for number, name in enumerate(names, start=1)
        )
        *others, switch = made
        _in_network_of(switch, "link", "add", "name", "lan", "type", "bridge")
        for machine in others:
            cable = ("type", "veth", "peer", "name", "lan", "netns", str(machine.pid))
            _in_network_of(switch, "link", "add", "name", machine.name, *cable)
            _in_network_of(switch, "link", "set", "dev", machine.name, "master", "lan", "up")
        for machine in made:
            _in_network_of(machine, "address", "add", f"{machine.address}/24", "dev", "lan")
            _in_network_of(machine, "link", "set", "dev", "lan", "up")
        yield made


def _locked(folder: Path) -> int:
    """As long as it is open, the machine is somebody's; `BlockingIOError` if it is already."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise
    return file


def _remove_left() -> None:
    """What a process that was killed could not remove: its machines have ended with it."""
    for folder in _DISKS.glob(f"{_PREFIX}*"):
        with suppress(BlockingIOError):
            os.close(_locked(folder))
            for group in (CGROUPS / folder.name, *CGROUPS.glob(f"*/{folder.name}")):
                _removed(group)
            shutil.rmtree(folder)


@contextmanager
def _machine(name: str, address: str) -> Iterator[Machine]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_DISKS))
        stack.callback(shutil.rmtree, folder)
        stack.callback(os.close, _locked(folder))
        if not _CONFIG.exists():  # or nothing could be mounted there
            _CONFIG.mkdir()
            stack.callback(_CONFIG.rmdir)
        (folder / "disk/etc/docker").mkdir(parents=True)
        (folder / "disk/etc/docker/daemon.json").write_text(_DOCKER)
        groups = stack.enter_context(_control_groups(folder))
        pid = stack.enter_context(_first_process(folder, name, groups))
        stack.enter_context(_way_out(pid))
        entered = [group / "init" for group in groups] if (folder / "unified").exists() else groups
        yield Machine(name, address, folder, pid, entered)


@contextmanager
def _control_groups(folder: Path) -> Iterator[Sequence[Path]]:
    """One in each hierarchy, empty again at the end."""
    if (CGROUPS / "cgroup.controllers").exists():
        (folder / "unified").touch()
        groups = [CGROUPS / folder.name]
    else:
        names = [
            path.name for path in CGROUPS.iterdir() if (path / "tasks").exists() and not path.is_symlink()
        ]
        controllers = [name for name in names if name != "unified"]
        (folder / "controllers").write_text("".join(f"{name}\n" for name in controllers))
        groups = [CGROUPS / name / folder.name for name in controllers]
    for group in groups:
        group.mkdir()
        if group.parent.name == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((group.parent / file).read_text())
    try:
        yield groups
    finally:
        for group in groups:
            until(lambda group=group: _removed(group), seconds=30, what=f"the end of {group}")  # type: ignore[misc]


def _removed(group: Path) -> bool:
    for place, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()
    return not group.exists()


@contextmanager
def _first_process(folder: Path, name: str, groups: Sequence[Path]) -> Iterator[int]:
    join = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
    spaces = "--net --mount --pid --uts --ipc --cgroup --fork --kill-child=KILL --mount-proc"
    script = shlex.join((str(Path(__file__).with_name("machine.sh")), str(folder), name, _NAMESERVER))
    # setpriv: unshare dies with us, and its child with it.
    command = f"{join}exec setpriv --pdeathsig KILL nice -n 19 unshare {spaces} bash {script}"
    with subprocess.Popen(["sh", "-euc", command], stdout=subprocess.PIPE, text=True) as unshare:
        try:
            assert unshare.stdout
            assert unshare.stdout.readline() == "ready\n", f"{name} does not start"
            children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
            yield int(children[0])
        finally:
            unshare.kill()


@contextmanager
def _way_out(pid: int) -> Iterator[None]:
    """The internet through a program, not through this machine's packet filter."""
    packages.fetch("slirp4netns", "libslirp0")
    command = (
        *("setpriv", "--pdeathsig", "KILL", str(packages.FOLDER / "usr/bin/slirp4netns")),
        *("--configure", "--mtu=1500", "--disable-host-loopback", f"--cidr={_NAT}", "--ready-fd=1"),
        *(str(pid), "out"),
    )
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=packages.environment()
    ) as slirp:
        try:
            assert slirp.stdout
            assert slirp.stderr
            assert slirp.stdout.read(1) == b"1", slirp.stderr.read()
            yield
        finally:
            slirp.kill()


def _in_network_of(machine: Machine, *arguments: str) -> None:
    command = ("nsenter", "--target", str(machine.pid), "--net", "ip", *arguments)
    subprocess.run(command, check=True, timeout=30)


@contextmanager
def ssh_server(machine: Machine, key: Path) -> Iterator[None]:
    """sshd on the machine's own address, for whoever has `key`, which is made here."""
    packages.fetch("openssh-server", "libwrap0")
    for file in (key, machine.folder / "host_key"):
        command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file))
        subprocess.run(command, check=True, timeout=30)
    options = {
        "ListenAddress": machine.address,
        "HostKey": str(machine.folder / "host_key"),
        "AuthorizedKeysFile": f"{key}.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        "PidFile": "none",
    }
    helpers = packages.FOLDER / "usr/lib/openssh"
    for name, program in (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")):
        if (helpers / program).exists():  # since OpenSSH 9.8 and 10
            options[name] = str(helpers / program)
    given = [f"-o{name}={text}" for name, text in options.items()]
    program = str(packages.FOLDER / "usr/sbin/sshd")
    libraries = f"LD_LIBRARY_PATH={packages.environment()['LD_LIBRARY_PATH']}"
    with machine.start("env", libraries, program, "-D", "-e", "-f/dev/null", *given) as server:
        try:
            until(lambda: _listens(machine, 22), seconds=20, what="the start of sshd")
            yield
        finally:
            server.kill()


@contextmanager
def tunnel(machine: Machine, to: Machine, port: int, key: Path) -> Iterator[None]:
    """`ssh -N -L` as the docs have it."""
    options = ("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oExitOnForwardFailure=yes")
    forward = ("-N", "-L", f"{port}:127.0.0.1:{port}")
    with machine.start(
        "ssh", "-F/dev/null", *options, "-i", str(key), *forward, f"root@{to.address}"
    ) as client:
        try:
            until(lambda: _listens(machine, port), seconds=20, what="the start of the tunnel")
            yield
        finally:
            client.kill()


def _listens(machine: Machine, port: int) -> bool:
    listening = machine.run("ss", "-Hltn", f"sport = :{port}")
    return bool(listening.strip())
