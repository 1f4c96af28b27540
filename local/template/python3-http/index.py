"""Serves function/handler.py: the contract of OpenFaaS's python3-http template, without a watchdog.

`handle(event, context)` gets body, headers, method, query and path, and returns a dict with
`statusCode`, `body` and `headers`, or anything that Flask takes. `/_/ready` and `/_/health` are
answered here: the handler is never called to find out whether it is ready.
"""

import os
import signal
import threading
import time
from pathlib import Path

from flask import Flask, jsonify, request
from function import handler
from waitress.server import create_server

THREADS = 4
DRAIN_SECONDS = 8

app = Flask(__name__)
draining = threading.Event()


class Event:
    def __init__(self):
        self.body = request.get_data()
        self.headers = request.headers
        self.method = request.method
        self.query = request.args
        self.path = request.path


class Context:
    def __init__(self):
        self.hostname = os.getenv("HOSTNAME", "localhost")


@app.get("/_/ready")
@app.get("/_/health")
def ready():
    return ("draining\n", 503) if draining.is_set() else ("OK\n", 200)


@app.route("/", defaults={"path": ""}, methods=["GET", "PUT", "POST", "PATCH", "DELETE"])
@app.route("/<path:path>", methods=["GET", "PUT", "POST", "PATCH", "DELETE"])
def call(path):
    return answer(handler.handle(Event(), Context()))


def answer(returned):
    """What the handler returned, as Flask takes it."""
    if returned is None:
        return "", 200
    if not isinstance(returned, dict):
        return returned
    body = returned.get("body", "")
    if isinstance(body, (dict, list)):
        body = jsonify(body)
    elif not isinstance(body, (str, bytes)):
        body = str(body)
    return body, returned.get("statusCode", 200), returned.get("headers", {})


def body_limit():
    """A body is in memory as a whole: each thread may take its part of the container's, more is 413."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text()) // THREADS
    except (OSError, ValueError):
        return 1024**3


def main():
    server = create_server(
        app,
        host="0.0.0.0",
        port=8080,
        threads=THREADS,
        ident=None,
        connection_limit=1000,
        asyncore_use_poll=True,
        max_request_body_size=body_limit(),
    )

    def drain():
        deadline = time.monotonic() + DRAIN_SECONDS
        tasks = server.task_dispatcher
        while (tasks.active_count or tasks.queue) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.1)  # the last answers are still on their way out
        os._exit(0)

    def stop(number, frame):
        draining.set()
        threading.Thread(target=drain).start()

    signal.signal(signal.SIGTERM, stop)
    server.run()


if __name__ == "__main__":
    main()
