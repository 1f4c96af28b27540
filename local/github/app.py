"""The API and the pages as one WSGI application."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flask import Flask
from werkzeug.exceptions import HTTPException

from . import pages
from .api import Api
from .pages import Pages
from .store import Store
from .tokens import App, Tokens

# As browsers and functions call it: a page of the world's may give this address a name of its own.
HOSTS = ["127.0.0.1", "localhost", "github"]
# A run has two texts of 65,535 characters.
_BODY_BYTES = 1024**2


def make(app_id: str, private_key: bytes, store: Store, root: Path) -> Flask:
    """`root` has the repositories of the git server, OWNER/NAME.git."""
    key = load_pem_private_key(private_key, None)
    assert isinstance(key, RSAPrivateKey)
    flask = Flask(__name__, static_folder=None, template_folder=None)
    flask.config.update(TRUSTED_HOSTS=HOSTS, MAX_CONTENT_LENGTH=_BODY_BYTES)
    flask.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    flask.add_template_filter(pages.state)
    flask.add_template_filter(pages.worst)
    flask.add_template_filter(pages.lasted)
    flask.register_error_handler(HTTPException, pages.refusal)
    flask.register_blueprint(Api(App(app_id, key.public_key()), Tokens(), store, root).routes())
    flask.register_blueprint(Pages(store, root).routes())
    flask.add_url_rule("/healthz", "healthz", lambda: "ok")
    return flask
