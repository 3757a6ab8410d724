"""The admin servicer: what a running server works with, and reloading it."""

from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from stillwatch.v1 import admin_pb2, admin_pb2_grpc, verdict_pb2

from classifier import __version__
from classifier.serve.reload import Reloader, Report, Trigger

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_TRIGGERS = {
    Trigger.CALL: admin_pb2.RELOAD_TRIGGER_CALL,
    Trigger.SIGNAL: admin_pb2.RELOAD_TRIGGER_SIGNAL,
    Trigger.WATCH: admin_pb2.RELOAD_TRIGGER_WATCH,
}


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Operates the server."""

    def __init__(self, reloader: Reloader) -> None:
        """Work on what the reloader keeps in force."""
        self._reloader = reloader

    async def Reload(self, request: admin_pb2.ReloadRequest, context: Context) -> admin_pb2.ReloadResponse:
        """Swap bundle, examples and settings as one, or refuse."""
        return admin_pb2.ReloadResponse(report=_report(await self._reloader.reload()))

    async def GetStatus(self, request: admin_pb2.GetStatusRequest, context: Context) -> admin_pb2.GetStatusResponse:
        """Say what is in force."""
        reloader = self._reloader
        runtime = reloader.generations.runtime
        snapshot, model = runtime.examples.snapshot, runtime.scorer.model
        started, uptime = Timestamp(), Duration()
        started.FromDatetime(reloader.started)
        uptime.FromTimedelta(datetime.now(UTC) - reloader.started)
        return admin_pb2.GetStatusResponse(
            server_version=__version__,
            provenance=verdict_pb2.Provenance(
                bundle_version=model.version,
                index_revision=snapshot.revision,
                review_threshold=model.thresholds.review,
                flag_threshold=model.thresholds.flag,
            ),
            extraction_examples=snapshot.extraction.index.size,
            benign_examples=snapshot.benign.index.size,
            start_time=started,
            uptime=uptime,
            reloads=reloader.swaps,
            refused_reloads=reloader.refusals,
            reload_in_progress=reloader.generations.reloading,
            last_reload=None if reloader.last is None else _report(reloader.last),
        )


def _report(report: Report) -> admin_pb2.ReloadReport:
    started, duration = Timestamp(), Duration()
    started.FromDatetime(report.started)
    duration.FromTimedelta(report.duration)
    return admin_pb2.ReloadReport(
        trigger=_TRIGGERS[report.trigger],
        outcome=admin_pb2.RELOAD_OUTCOME_SWAPPED if report.swapped else admin_pb2.RELOAD_OUTCOME_REFUSED,
        reason=report.reason,
        message=report.message,
        bundle_version=report.bundle_version,
        start_time=started,
        duration=duration,
        moved_canaries=report.moved_canaries,
        needs_restart=report.needs_restart,
    )
