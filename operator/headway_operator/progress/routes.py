"""The endpoint's requests: each finds out who asks, then answers from the directory."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from headway_api.base import ApiModel
from headway_api.contract import (
    job_path,
    kubeflow_audience,
    kubeflow_status_path,
    lead_hostname,
    token_audience,
)
from headway_api.messages import ProgressReport, ReportResponse
from headway_operator.cluster.client import Object
from headway_operator.progress.access import (
    LEAD,
    Member,
    bearer_token,
    check_lead,
    check_namespace,
    member,
    missed,
)
from headway_operator.progress.directory import Directory
from headway_operator.progress.joining import directions, join_response
from headway_operator.progress.peers import peers_of
from headway_operator.progress.pki import Identity, certificate_for
from headway_operator.progress.ratelimit import RateLimiter
from headway_operator.progress.refusals import Refusal
from headway_operator.progress.summary import KubeflowUpdate, from_kubeflow, with_known_progress
from headway_operator.progress.tokens import KeysUnavailableError, TokenError, TokenVerifier

LONGEST_POLL: Final = 30.0
"""Seconds; shorter than what proxies and load balancers commonly cut."""
SETTLE_SECONDS_PER_PEER: Final = 0.001
LONGEST_SETTLE: Final = 0.5
"""Seconds. The pods of a large group come in one by one: telling each of them of each other would
cost the square of their number, so news wait for more, the longer the larger the group."""
BODY_SECONDS: Final = 10.0
"""How long a client may take to send 64 KiB."""
REQUESTS_PER_SECOND: Final = 20.0
BURST: Final = 40

_Message = TypeVar("_Message", bound=BaseModel)


@dataclass(frozen=True)
class Services:
    """What the routes work with.

    Attributes:
        directory: the operator's jobs and pods.
        verifier: of the pods' tokens.
        identity: of the endpoint: its secret makes the jobs' keys, its authority signs for leads.
        limiter: of the requests of each pod.
    """

    directory: Directory
    verifier: TokenVerifier
    identity: Identity
    limiter: RateLimiter = field(default_factory=lambda: RateLimiter(REQUESTS_PER_SECOND, BURST))


SERVICES: Final = web.AppKey("services", Services)


def add_routes(app: web.Application) -> None:
    """Add all routes; `app[SERVICES]` has to be set."""
    job = job_path("{namespace}", "{name}")
    app.router.add_post(f"{job}/join", join)
    app.router.add_get(f"{job}/peers", peers)
    app.router.add_post(f"{job}/progress", progress)
    app.router.add_post(kubeflow_status_path("{namespace}", "{name}"), kubeflow_status)


async def join(request: web.Request) -> web.Response:
    """POST …/join: `JoinResponse`."""
    job, caller = await _job_and_member(request, token_audience(*_place(request)))
    services, place = request.app[SERVICES], _place(request)
    directory, identity = services.directory, services.identity
    found = peers_of(job, directory.pods(*place))
    answer = join_response(job, found, directory.report(*place), identity.secret)
    if caller.index == LEAD:
        name = lead_hostname(*place)
        certificate = certificate_for(identity, name, datetime.now(UTC))
        answer = answer.model_copy(update={"certificate": certificate})
    return _json(answer)


async def peers(request: web.Request) -> web.Response:
    """GET …/peers?after=<version>&timeout=<seconds>: `PeersResponse` once the version differs.

    204 without a body when it still is `after` at the time-out. With `silent=<uid>`, the caller
    says that it hears nothing of the lead with that UID.
    """
    place, deadline = _place(request), asyncio.get_running_loop().time() + _timeout(request)
    job, caller = await _job_and_member(request, token_audience(*place))
    directory = request.app[SERVICES].directory
    _note_silence(request, job, caller, request.query.getall("silent", ()))
    while True:
        found = peers_of(job, directory.pods(*place))
        if found.version != request.query.get("after"):
            return _json(found)
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return web.Response(status=204)
        await directory.wait_changed(*place, left)
        await asyncio.sleep(min(found.replicas * SETTLE_SECONDS_PER_PEER, LONGEST_SETTLE))
        job = _same_job(job, directory.job(*place))


async def progress(request: web.Request) -> web.Response:
    """POST …/progress: takes a `ProgressReport` of the lead, answers with `ReportResponse`."""
    place = _place(request)
    job, caller = await _job_and_member(request, token_audience(*place))
    check_lead(caller)
    report = _parse(ProgressReport, await read_body(request))
    directory = request.app[SERVICES].directory
    _note_silence(request, job, caller, (peer.uid for peer in report.silent))
    directory.record(*place, with_known_progress(report, directory.report(*place)))
    suspend = bool(job.get("spec", {}).get("suspend"))
    return _json(ReportResponse(suspend=suspend, directions=directions(job)))


async def kubeflow_status(request: web.Request) -> web.Response:
    """POST of Kubeflow's clients (KEP-2779): echoes what was understood.

    A token that is missing or wrong is answered 403 there, not 401.
    """
    place = _place(request)
    try:
        job, caller = await _job_and_member(request, kubeflow_audience(*place))
    except Refusal as refusal:
        raise Refusal(
            403 if refusal.code == 401 else refusal.code, refusal.message, refusal.retry_after
        ) from None
    check_lead(caller)
    update = _parse(KubeflowUpdate, await read_body(request))
    directory = request.app[SERVICES].directory
    if update.trainer_status is not None:
        latest = directory.report(*place)
        told = from_kubeflow(update.trainer_status, job, latest, datetime.now(UTC))
        directory.record(*place, told)
    return _json(update)


async def _job_and_member(request: web.Request, audience: str) -> tuple[Object, Member]:
    services, (namespace, name) = request.app[SERVICES], _place(request)
    token = bearer_token(request.headers.get("Authorization"))
    try:
        caller = await services.verifier.verify(token, audience)
    except TokenError as error:
        raise Refusal(401, str(error)) from None
    except KeysUnavailableError as error:
        raise Refusal(503, str(error), retry_after=1) from None
    if not services.limiter.allow(caller.pod_uid):
        raise Refusal(429, f"more than {REQUESTS_PER_SECOND:g} requests/s of one pod", 1)
    check_namespace(caller, namespace)
    job = services.directory.job(namespace, name)
    if job is None:
        raise Refusal(404, f"TrainingJob {namespace}/{name} does not exist")
    found = member(caller, job, services.directory.pods(namespace, name))
    services.directory.heard(namespace, name, found.uid)
    return job, found


def _note_silence(request: web.Request, job: Object, caller: Member, uids: Iterable[str]) -> None:
    directory, place, said = request.app[SERVICES].directory, _place(request), frozenset(uids)
    silent = missed(caller, said, job, directory.pods(*place)) if said else said
    directory.heard(*place, caller.uid, silent)


def _same_job(before: Object, now: Object | None) -> Object:
    if now is None or now["metadata"]["uid"] != before["metadata"]["uid"]:
        raise Refusal(404, f"TrainingJob {before['metadata']['name']} has been deleted")
    return now


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


def _timeout(request: web.Request) -> float:
    try:
        asked = float(request.query.get("timeout", LONGEST_POLL))
    except ValueError:
        raise Refusal(400, "timeout has to be a number of seconds") from None
    # Written so that NaN ends up as no wait.
    return min(asked, LONGEST_POLL) if asked > 0 else 0.0


async def read_body(request: web.Request) -> bytes:
    """The body of a request, which has to arrive in time.

    Raises:
        Refusal: 408.
        aiohttp.web.HTTPRequestEntityTooLarge: it is larger than the application allows.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None


def _parse(kind: type[_Message], body: bytes) -> _Message:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refusal(422, f"{field}: {first['msg']}") from None


def _json(message: ApiModel) -> web.Response:
    return web.Response(body=orjson.dumps(message.wire()), content_type="application/json")
