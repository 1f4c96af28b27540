"""`full.py PID mount|umount`: lay a disk that is full over the /tmp of a process, or take it away again.

A program of its own: what enters another mount namespace stays there. The container's own programs are
not asked, it may have none.
"""

from __future__ import annotations

import ctypes
import os
import sys

_NEW_MOUNTS, _DETACH = 0x00020000, 2  # CLONE_NEWNS of setns(2), MNT_DETACH of umount2(2)
# The directory itself and one more: no second file, and none of over a page.
_OPTIONS = b"size=4k,nr_inodes=2,mode=1777"


def main(pid: str, verb: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    failed = libc.setns(namespace, _NEW_MOUNTS)
    if not failed and verb == "mount":
        failed = libc.mount(b"full", b"/tmp", b"tmpfs", 0, _OPTIONS)
    elif not failed:
        failed = libc.umount2(b"/tmp", _DETACH)
    if failed:
        sys.exit(os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(*sys.argv[1:])
