"""The floor of the webhook rows: Flask and waitress alone, as one would write it in an afternoon.

It checks GitHub's signature, reads the event, and hands a signed description on by a pooled connection.

`python -m bench.plain_app PORT GATEWAY-URL`, with the secrets in the environment
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import threading
import time

import requests
from flask import Flask, Response, jsonify, request
from waitress import serve

GATEWAY = sys.argv[2] if len(sys.argv) > 2 else ""
WEBHOOK, PAYLOAD = (os.environ.get(name, "").encode() for name in ("WEBHOOK", "PAYLOAD"))

app = Flask(__name__)
local = threading.local()


def signature(key: bytes, body: bytes) -> str:
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


@app.post("/")
def webhook() -> tuple[Response, int]:
    body = request.get_data()
    if not hmac.compare_digest(signature(WEBHOOK, body), request.headers.get("X-Hub-Signature-256", "")):
        return jsonify(error="bad signature"), 401
    event = json.loads(body)
    if request.headers.get("X-GitHub-Event") != "push" or event["ref"] != "refs/heads/master":
        return jsonify(ignored=event["ref"]), 200
    repository = event["repository"]
    described = {
        "for": "git-tar",
        "at": int(time.time()),
        "delivery": request.headers["X-GitHub-Delivery"],
        "ref": event["ref"],
        "after": event["after"],
        "repository": {key: repository[key] for key in ("id", "name", "full_name", "clone_url", "owner")},
    }
    message = json.dumps(described).encode()
    if not hasattr(local, "session"):
        local.session = requests.Session()
        local.session.trust_env = False
    headers = {"Content-Type": "application/json", "X-Cloud-Signature": signature(PAYLOAD, message)}
    url = f"{GATEWAY}/async-function/git-tar"
    answer = local.session.post(url, data=message, headers=headers, timeout=(3, 2))
    answer.raise_for_status()
    return jsonify(queued=repository["full_name"]), 202


if __name__ == "__main__":
    serve(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        threads=4,
        ident=None,
        connection_limit=1000,
        asyncore_use_poll=True,
    )
