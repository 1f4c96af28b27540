"""What the GitHub App of a cloud may do and hears of, and what GitHub gives for it. Pure, but for one call.

https://docs.github.com/apps/sharing-github-apps/registering-a-github-app-from-a-manifest
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import requests

from ..errors import CommandError

# git-tar reads contents, reconcile the names of repositories; github-status writes checks. With these, commit
# statuses are never written (docs/github-status.md).
PERMISSIONS: Mapping[str, str] = {"contents": "read", "metadata": "read", "checks": "write"}
# What gh-push knows of. `installation` and `installation_repositories` come to every App: GitHub refuses a
# manifest that lists them.
EVENTS = ("push", "repository", "check_run", "check_suite")

NAME_LENGTH = 34
SECONDS = 15


@dataclass(frozen=True)
class App:
    """GitHub's answer, as far as it is used: both texts are secret, and are not given again."""

    id: int
    html_url: str
    pem: str = field(repr=False)
    webhook_secret: str = field(repr=False)


def manifest(gateway: str, name: str, redirect_url: str, *, public: bool) -> Mapping[str, Any]:
    """The form's text. GitHub shows `name` to be changed; it must be nobody else's in all of GitHub."""
    base = gateway.rstrip("/")
    return {
        "name": name or f"cloud {urlsplit(base).hostname}"[:NAME_LENGTH].strip(),
        "url": base,
        "description": "git push, and seconds later the function is live",
        "hook_attributes": {"url": f"{base}/function/gh-push", "active": True},
        "redirect_url": redirect_url,
        "public": public,
        "default_permissions": dict(PERMISSIONS),
        "default_events": list(EVENTS),
    }


def check_gateway(gateway: str) -> None:
    """`CommandError` for one that GitHub sends no events to, or where others could read them."""
    try:
        parts = urlsplit(gateway)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or "@" in parts.netloc or parts.scheme != "https" or parts.query or parts.fragment:
        raise CommandError(f"--gateway {gateway}: GitHub sends events to it, so it is https://HOST, with TLS")
    if host == "localhost" or _is_loopback(host):
        raise CommandError(f"--gateway {gateway}: GitHub can't reach this machine by a loopback address")


def website(api: str) -> str:
    """Where people use the GitHub that has this REST API.

    https://docs.github.com/enterprise-server/rest/quickstart, https://docs.github.com/enterprise-cloud/admin/data-residency
    """
    parts = urlsplit(api)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    if parts.scheme in ("https", "http") and path == "/api/v3":
        return base
    if parts.scheme == "https" and not path and parts.netloc.startswith("api."):
        return base.replace("://api.", "://", 1)
    raise CommandError(f"{api} is not GitHub's REST API: https://api.github.com, or https://HOST/api/v3")


def form_url(api: str, org: str, state: str) -> str:
    owner = f"/organizations/{quote(org, safe='')}" if org else ""
    return f"{website(api)}{owner}/settings/apps/new?state={quote(state, safe='')}"


def convert(api: str, code: str) -> App:
    """The App for the code that GitHub's redirect had; it works once, within an hour."""
    url = f"{api.rstrip('/')}/app-manifests/{quote(code, safe='')}/conversions"
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    try:
        answer = requests.post(url, headers=headers, timeout=SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise CommandError(f"GitHub can't be reached at {api}: {type(error).__name__}. {_AGAIN}") from None
    if answer.status_code != 201:
        raise CommandError(f"GitHub answered {answer.status_code} when asked for the App's key. {_AGAIN}")
    try:
        app = msgspec.json.decode(answer.content, type=App)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # its text may be the key
        raise CommandError(
            f"GitHub's answer is not an App with a key and a webhook secret. {_AGAIN}"
        ) from None
    if not app.pem or not app.webhook_secret:
        raise CommandError(f"GitHub's answer has no key, or no webhook secret. {_AGAIN}")
    return app


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_AGAIN = "If the App is there, delete it in its settings; then run this again"
