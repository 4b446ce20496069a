"""Everything that the gateway writes can be read by its user alone, whatever the user's umask."""

import random
import stat
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.flow.load import fill_inference, new_resource, send_once
from tests.flow.site import wait_for_rows
from tests.servers import gateway

pytestmark = pytest.mark.flow

WRITTEN = ("state.db", "retrieve.db", "audit.jsonl", "site.key", "journal/lock")


def test_no_file_or_folder_is_open_to_others(tmp_path: Path) -> None:
    request = ExportTraceServiceRequest()
    scope = new_resource(request, "cam-1").scope_spans.add()
    fill_inference(scope.spans.add(), random.Random(1), 1)
    with gateway(tmp_path, overrides=("store.segment_age=1s",)) as target:
        assert send_once(target, request.SerializeToString(), "http")
        wait_for_rows(target, 1)
        found = {path.relative_to(target.data_dir) for path in target.data_dir.rglob("*")}
        assert {Path(name) for name in WRITTEN} <= found
        kinds = {path.suffix for path in found}
        assert {".parquet", ".bloom", ".segment", ".db-wal"} <= kinds
        modes = {
            str(path): stat.S_IMODE((target.data_dir / path).stat().st_mode)
            for path in (Path(), *found)
            if (target.data_dir / path).exists()
        }
        assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
