"""Dead letters of a real gateway from the command line: refused, shown, replayed, dropped.

Law: the accounting identity holds at every scrape of all this, and what is replayed arrives once.
"""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.flow.load import Load
from tests.flow.site import account, scrape, settled, site_file, watched
from tests.flow.test_terminal import weir
from tests.servers import gateway, wait_until
from tests.sink import Refusal, otlp_sink

pytestmark = pytest.mark.flow

SPANS: Final = 200
WAIT_S: Final = 30.0
REASON: Final = "no tenant"


def test_what_was_refused_is_seen_replayed_and_dropped(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with otlp_sink() as sink:
        sink.refuse(Refusal(http_status=400, message=REASON))
        config = site_file(tmp_path, sink.http_url)
        with gateway(tmp_path, config=config) as target, watched(target):
            with load.running(target):
                load.wait_for(SPANS)
            terms = settled(target, len(load.acknowledged))
            assert terms.dropped > 0
            assert terms.forwarded == 0
            page = scrape(target)
            assert page.total("weir_dropped_items_total", reason="refused") == terms.dropped
            assert page.total("weir_outbox_oldest_seconds") == 0.0

            code, out, errors = weir(target.api, "dead-letter", "list", "--json")
            assert (code, errors) == (0, "")
            found = json.loads(out)
            assert found["total_items"] == terms.dropped
            assert {REASON in each["reason"] for each in found["items"]} == {True}
            assert REASON in weir(target.api, "dead-letter", "list")[1]

            # The oldest letter is replayed by its id and refused again: a new letter.
            oldest = found["items"][-1]
            refused = sink.refused
            assert weir(target.api, "dead-letter", "replay", str(oldest["id"]))[0] == 0
            sink.wait_for_refusals(refused + 1)
            assert settled(target, terms.received).dropped == terms.dropped

            # One is given up, the others arrive once the destination is well again.
            sink.accept()
            letters = json.loads(weir(target.api, "dead-letter", "list", "--json")[1])["items"]
            gone = letters[0]
            code, _, errors = weir(target.api, "dead-letter", "drop", str(gone["id"]))
            assert code == 2
            assert "--yes" in errors
            code, out, _ = weir(target.api, "dead-letter", "drop", str(gone["id"]), "--yes")
            assert (code, out) == (0, f"1 letters of {gone['items']:,} items dropped\n")
            assert account(target).dropped == terms.dropped
            rest = terms.dropped - gone["items"]
            code, out, errors = weir(
                target.api, "dead-letter", "replay", "--all", "--reason", "TENANT"
            )
            assert (code, errors) == (0, "")
            assert out == (f"{len(letters) - 1:,} letters of {rest:,} items replayed\n")
            assert weir(target.api, "forward", "drain", "--timeout", "30s")[0] == 0
            wait_until(
                lambda: account(target).forwarded == rest,
                timeout_s=WAIT_S,
                what=lambda: f"replayed items {account(target)}",
            )
            assert account(target).dropped == gone["items"]
            assert sink.span_count() == rest
            assert len({span.span_id for span in sink.spans()}) == sink.span_count()
            assert weir(target.api, "dead-letter", "list")[1] == "no dead letters\n"
            audit = (target.data_dir / "audit.jsonl").read_text()
            assert audit.count("dead_letters_replay") == 2
            assert audit.count("dead_letters_drop") == 1
