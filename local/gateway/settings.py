"""The local gateway's settings, in the same kind of table as the functions'."""

from __future__ import annotations

from dataclasses import dataclass

from sdk.settings import Seconds, setting


@dataclass(frozen=True)
class Settings:
    port: int = setting(8080, "port to serve at, on every address of its container")
    functions_network: str = setting("func_functions", "network of the functions")
    system_network: str = setting("func_system", "network that `role: openfaas-system` joins too")
    secret_mount_path: str = setting("/run/secrets", "folder with basic-auth-user and -password")
    queue_path: str = setting("/var/lib/gateway/queue", "folder of the queue's database")
    queue_limit: int = setting(1000, "calls that may wait for one function")
    queue_unknown_limit: int = setting(1000, "calls that may wait for functions that are not there")
    queue_workers: int = setting(4, "calls at once for one function")
    queue_attempts: int = setting(100, "how often a call is tried")
    queue_failed_limit: int = setting(100, "calls of one function that failed for good and are kept")
    queue_failed_mb: int = setting(256, "most that all failed calls take, in MiB")
    queue_failed_age: Seconds = setting(Seconds(14 * 24 * 3600), "a failed call is kept this long")
    queue_backoff: Seconds = setting(Seconds(1), "pause after the first failed try; then doubled")
    queue_backoff_limit: Seconds = setting(Seconds(60), "longest pause between two tries")
    callback_networks: tuple[str, ...] = setting(
        (), "addresses beside the public ones that a callback may go to, such as `192.168.1.0/24`; comma list"
    )
    callback_attempts: int = setting(5, "how often a callback is tried")
    callback_timeout: Seconds = setting(Seconds(10), "longest try of a callback that leaves the gateway")
    upstream_timeout: Seconds = setting(Seconds(16 * 60), "longest call of a function")
    body_patience: Seconds = setting(Seconds(30), "a caller that sends nothing for so long is given up")
    connect_patience: Seconds = setting(Seconds(5), "how long a function that restarts is waited for")
    ready_timeout: Seconds = setting(Seconds(300), "a new version that is not ready by then has failed")
    probation: Seconds = setting(
        Seconds(1.5),
        "a new version must live this long to replace the old, and half of it to be told as available",
    )
    drain_timeout: Seconds = setting(Seconds(16 * 60), "longest that an old version finishes its calls")
    memory_limit: str = setting("256Mi", "memory limit of a function that names none")
    pids_limit: int = setting(256, "most processes and threads of a function")
