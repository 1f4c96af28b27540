"""`python -m tests.chaos`: see CONTRIBUTING.md. Ends with 1 if anything was found."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

import docker

from local.images import ROOT
from local.state import State

from . import cleaning, platform
from .plants import PLANTS
from .run import Run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, help="repeats a run's pushes and faults")
    parser.add_argument("--replicas", type=int, default=2, help="of git-tar and buildshiprun")
    parser.add_argument("--plant", choices=sorted(PLANTS), default="", help="a bug that must be found")
    parser.add_argument("--keep-going", action="store_true", help="do not end with the first finding")
    arguments = parser.parse_args()
    if os.geteuid():
        sys.exit("chaos kills processes of containers: it must run as root")
    seed = random.SystemRandom().randrange(10**5) if arguments.seed is None else arguments.seed
    signal.signal(signal.SIGTERM, _interrupted)
    subprocess.run([sys.executable, "-m", "local", "up"], cwd=ROOT, check=True, timeout=600)
    state, engine = State.here(), docker.from_env(timeout=60)
    print(f"SEED={seed}", flush=True)
    kept = cleaning.failed(state)
    cleaning.clean(state, engine, kept)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="chaos-") as folder,
            platform.prepared(state, engine, arguments.replicas, arguments.plant) as control,
        ):
            run = Run(state, engine, control, seed, Path(folder))
            figures = run.go(arguments.rounds, keep_going=arguments.keep_going)
    finally:
        cleaning.clean(state, engine, kept)
    print(figures.table)
    print(figures)
    return 0 if figures.clean else 1


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads that follow the log have no end of their own
