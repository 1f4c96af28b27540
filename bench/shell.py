"""A shell in a container that stays open: to start one takes longer than most of what it does."""

from __future__ import annotations

import shlex
import subprocess
import threading
import uuid

_SECONDS = 60


class Shell:
    def __init__(self, container: str) -> None:
        self._process = subprocess.Popen(
            ("docker", "exec", "--interactive", container, "sh"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def run(self, *command: str) -> str:
        """What a program prints; `RuntimeError` if it fails, or takes longer than a minute."""
        mark, printed = uuid.uuid4().hex, []
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            said = shlex.join(("timeout", str(_SECONDS), *command))
            self._process.stdin.write(f"{said} 2>&1 </dev/null; echo; echo {mark} $?\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith(mark):
                    break
                printed.append(line)
        output = "".join(printed).strip()
        if not line.startswith(f"{mark} 0"):
            raise RuntimeError(f"{' '.join(command[:4])}: {output}")
        return output

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(_SECONDS)
