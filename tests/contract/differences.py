"""Where the local gateway deliberately answers otherwise than the recorded one, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """What the local gateway answers: a status, and a body that matches `text` from its start."""

    why: str
    status: int = 200
    text: str = ""


_WORDS = "the same is said of another provider, or in other words"
_CREATED = Difference(_WORDS, 400, r"unable to create function: \S+, error: already exists\n$")
_PULL = Difference(
    "the registry's words are the engine's, who asks it", 400, r"unable to pull image \S+: cannot pull: .*\n$"
)
_KEPT = "a deploy that can't be carried out never touches what runs"
_DRAINED = "what is ended is given the time it needs; nobody waits for that"
_PATIENT = "an update loses no call and is not cut off, however long it takes"

DIFFERENT: Mapping[str, Difference] = {
    "01-system-info": Difference("another provider"),
    "07-functions-one-no-prometheus": Difference("there is no Prometheus that could be missing"),
    "10-deploy-already-exists": _CREATED,
    "20-deploy-wrong-type": Difference(_WORDS, 400, r"Expected `str`, got `int`"),
    "22-async-no-nats": Difference("the queue is part of the gateway", 202),
    "24-deploy-missing-tag": _PULL,
    "25-deploy-missing-repo": _PULL,
    "26-deploy-unreachable-registry": _PULL,
    "27-deploy-dockerhub": _PULL,
    "30-secrets-empty": Difference("JSON is said to be JSON, not text/plain", text=r"\[\]$"),
    "33-secret-list": Difference("JSON is said to be JSON, not text/plain", text=r'\[{"name": "s1"'),
    "40-secret-delete-missing": Difference(_WORDS, 500, r"remove s2: no such secret\n$"),
    "56-status-full": Difference("faasd cuts values of the environment at the second `=`"),
    "57-list-full": Difference("faasd cuts values of the environment at the second `=`"),
    "60-update-unpullable": _PULL,
    "61-status-after-unpullable-update": Difference(_KEPT),
    "62-invoke-after-unpullable-update": Difference(_KEPT),
    "64-update-missing-secret": Difference(_KEPT, 400, r"unable to find secret: ghost\n$"),
    "65-status-after-missing-secret": Difference(_KEPT),
    "66-invoke-after-missing-secret": Difference(_KEPT),
    "74-update-env": Difference(_DRAINED),
    "75-invoke-env": Difference(_DRAINED),
    "76-status-cat": Difference(_DRAINED),
    "90-delete-cat-slow": Difference(_DRAINED),
    "95-ref-3": _PULL,
    "95-ref-4": _PULL,
    "95-ref-5": _PULL,
    "95-ref-6": _PULL,
    "95-ref-8": _PULL,
    "95-ref-9": _PULL,
    "95-ref-10": _PULL,
    "96-ref-with-docker-config": Difference("the engine pulls, and loopback needs no https"),
    "D4-deploy-longer-than-upstream-timeout": Difference(_PATIENT),
    "D6-deploy-again": _CREATED,
    "D7-update-longer": Difference(_PATIENT),
    "D9-del": Difference(_PATIENT),
    "F3-invoke-crashed": Difference(
        "what never got ready is no endpoint", 503, r"No endpoints available for: crash\.\n$"
    ),
    "F7-del": Difference(_DRAINED),
    "F8-deploy-noexec": Difference("a container is started after the answer: the status says why it failed"),
    "F10-redeploy-noexec": _CREATED,
    "F14-concurrent-put-a": Difference("updates of one function come one after the other"),
    "F16-deploy-badmem": Difference(
        "faasd runs it without a limit", 400, r"memory 'lots' is no quantity from 4Mi to 1Ti"
    ),
    "F19-label-invalid": Difference("Swarm bounds no label at 4,096 bytes"),
    "J1-inflight-during-put": Difference(_PATIENT),
}

# No exchange that could be replayed, or none with what the local gateway has.
NOT_REPLAYED: Mapping[str, str] = {
    "00-faasd-ce-0.19.7-refuses-to-start": "no exchange: another edition does not start",
    "A0-gateway-with-plain-nats-server": "no exchange: OpenFaaS's gateway and its NATS",
    "B0-switch-v1-v2": "no exchange, but how long faasd loses calls during an update; ours loses none",
    "B1-switch-v1-v2-independent-requests": "no exchange, but how many calls faasd loses; ours loses none",
    "D2-gw-write-timeout": "there is no write_timeout: upstream_timeout alone ends a call",
    "D3-gw-read-timeout": "there is no read_timeout: body_patience is tested by itself",
    "E0-faas-cli": "no exchange, but faas-cli's output; its calls are among the others",
}
