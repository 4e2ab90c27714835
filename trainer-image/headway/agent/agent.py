"""What a pod does from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from headway.agent import orphans, termination, tls
from headway.agent.committer import Committer
from headway.agent.config import PodConfig
from headway.agent.endpoint import Endpoint
from headway.agent.group import Group
from headway.agent.lead import Lead
from headway.agent.member import Member, unless
from headway.agent.peers import Peers
from headway.agent.reporting import Reporter
from headway.checkpoint.errors import BucketMissing, StoreDenied, StoreUnavailable
from headway.checkpoint.stores import Store, check
from headway.tracking.history import HistoryWriter
from headway_api.contract import ExitCode
from headway_api.messages import JoinResponse, PeersResponse, TerminationReport
from headway_api.trainingjob import FailurePolicy

log = logging.getLogger(__name__)
_FAREWELL_SECONDS = 3.0
_STORAGE_RETRY_SECONDS = 2.0
_SIZE_POLL_SECONDS = 20.0


class StorageRefusedError(Exception):
    """Storage will not take this job's checkpoints; a restart would not help."""


@dataclass
class _Leading:
    """What only the lead's pod has."""

    lead: Lead
    reporter: Reporter
    loop: asyncio.Task[None]


async def run(config: PodConfig) -> int:
    """Run the pod; returns its exit code, and leaves the reason in the termination log."""
    report = await _run(config)
    termination.write(config.termination_log, report)
    well = report.exit_code in (ExitCode.DONE, ExitCode.PAUSED)
    level = logging.INFO if well else logging.ERROR
    log.log(level, "%s: %s", report.reason, report.message)
    return report.exit_code


async def _run(config: PodConfig) -> TerminationReport:
    terminated = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated.set)
    async with orphans.reaped(), _endpoint(config) as endpoint:
        reporter = Reporter(config.attempt)
        try:
            ready = await unless(terminated, _prepare(config, endpoint, reporter))
        except StorageRefusedError as error:
            return TerminationReport(
                reason="StorageRefused", exit_code=ExitCode.CONFIG, message=str(error)
            )
        if ready is None:
            return _preempted("the pod was taken away before training started")
        answer, store = ready
        key = bytes.fromhex(answer.job_key)
        async with _leading(config, key, answer, store, endpoint, reporter) as leading:
            return await _take_part(config, key, answer, endpoint, leading, terminated)


async def _take_part(
    config: PodConfig,
    key: bytes,
    answer: JoinResponse,
    endpoint: Endpoint | None,
    leading: _Leading | None,
    terminated: asyncio.Event,
) -> TerminationReport:
    member = Member(config, key, Peers(config, endpoint, answer).lead_address)
    work = asyncio.create_task(member.run())
    leaving = asyncio.create_task(_leave_on(terminated, member))
    tasks: set[asyncio.Task[Any]] = {work, leading.loop} if leading else {work}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if leading and leading.loop.done():
        leading.loop.result()  # the lead's loop never returns: this raises what broke it
    report = _last_words(await work, leading)
    if endpoint and report.progress:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(endpoint.report(report.progress), _FAREWELL_SECONDS)
    return report


async def _leave_on(terminated: asyncio.Event, member: Member) -> None:
    await terminated.wait()
    member.leave()


@contextlib.asynccontextmanager
async def _endpoint(config: PodConfig) -> AsyncIterator[Endpoint | None]:
    if not config.endpoint:
        yield None
        return
    async with Endpoint(config) as endpoint:
        yield endpoint


@contextlib.asynccontextmanager
async def _leading(
    config: PodConfig,
    key: bytes,
    answer: JoinResponse,
    store: Store | None,
    endpoint: Endpoint | None,
    reporter: Reporter,
) -> AsyncIterator[_Leading | None]:
    if not config.leads:
        yield None
        return
    group = Group(
        replicas=answer.replicas,
        processes=config.processes,
        policy=answer.failure_policy,
        smallest=answer.min_replicas,
        counted_before=answer.restarts_counted,
        generation=answer.generation,
    )
    holder = f"{config.pod_name}/{config.pod_uid}"
    committer = Committer(store, config.checkpoint, holder, reporter.event)
    context = tls.of_lead(answer.certificate, config.scratch)
    lead = Lead(config, key, group, committer, reporter, answer.peers, context, answer.directions)
    tasks = [asyncio.create_task(lead.run())]
    if endpoint:
        tasks.append(asyncio.create_task(reporter.run(endpoint, lead.direct)))
        if group.elastic:
            tasks.append(asyncio.create_task(_watch_size(endpoint, answer, lead)))
    if store:
        reporter.history = HistoryWriter(store)
        tasks.append(asyncio.create_task(reporter.keep_history()))
    try:
        yield _Leading(lead, reporter, tasks[0])
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reporter.flush_history(), _FAREWELL_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch_size(endpoint: Endpoint, known: PeersResponse, lead: Lead) -> None:
    """Tell the lead when the job is given another number of pods."""
    while True:
        news = await endpoint.peers(after=known.version, wait=_SIZE_POLL_SECONDS)
        if news is not None and news.replicas != known.replicas:
            lead.resize(news.replicas)
        known = news or known


async def _prepare(
    config: PodConfig, endpoint: Endpoint | None, reporter: Reporter
) -> tuple[JoinResponse, Store | None]:
    """Everything before training: the operator's answer, and storage that is known to work."""
    answer = await endpoint.join() if endpoint else _alone(config)
    if not config.leads or not config.storage_uri:
        return answer, None
    try:
        store = await asyncio.to_thread(config.open_store)
        await _storage_works(store, endpoint, reporter)
    except (BucketMissing, StoreDenied, ValueError) as error:
        raise StorageRefusedError(f"storage can't be used: {error}") from error
    return answer, store


async def _storage_works(store: Store, endpoint: Endpoint | None, reporter: Reporter) -> None:
    while True:
        try:
            return await asyncio.to_thread(check, store)
        except StoreUnavailable as error:
            message = f"waiting for storage: {error}"
            log.warning("%s", message)
            reporter.group("Waiting", message, 0, 0, None)
            if endpoint:
                await endpoint.report(reporter.next())
        await asyncio.sleep(_STORAGE_RETRY_SECONDS)


def _alone(config: PodConfig) -> JoinResponse:
    """For a pod without an operator: `headway-agent -- python train.py` on one machine."""
    return JoinResponse(
        version="",
        replicas=config.replicas,
        job_key=secrets.token_hex(32),
        generation=0,
        restarts_counted=0,
        failure_policy=FailurePolicy(),
    )


def _preempted(message: str) -> TerminationReport:
    return TerminationReport(reason="Preempted", exit_code=ExitCode.PREEMPTED, message=message)


def _last_words(code: int, leading: _Leading | None) -> TerminationReport:
    finish = leading.lead.ended if leading else None
    progress = leading.reporter.next() if leading else None
    if finish is not None:
        return TerminationReport(
            reason=finish.reason,
            exit_code=finish.code,
            message=finish.message,
            culprit=finish.culprit,
            progress=progress,
        )
    if code == ExitCode.PREEMPTED:
        return _preempted("the pod was taken away").model_copy(update={"progress": progress})
    if code == ExitCode.PAUSED:
        message = "the group has paused; the pod of worker 0 tells where"
        return TerminationReport(reason="Paused", exit_code=code, message=message)
    if code == ExitCode.PEER_LOST:
        message = "the group ended; the pod of worker 0 tells why"
        return TerminationReport(reason="GroupEnded", exit_code=code, message=message)
    reason = "Done" if code == ExitCode.DONE else "Error"
    return TerminationReport(reason=reason, exit_code=code, progress=progress)
