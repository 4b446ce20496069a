"""The check of the accounting identity accepts what adds up and refuses what does not."""

import pytest

from tests.ledger_check import check_identity, parse

BALANCED = """
# TYPE weir_received_items_total counter
weir_received_items_total{signal="traces",transport="grpc"} 60
weir_received_items_total{signal="traces",transport="http"} 40
# TYPE weir_sampled_out_items_total counter
weir_sampled_out_items_total{signal="traces",rule="rate"} 70
# TYPE weir_forwarded_items_total counter
weir_forwarded_items_total{destination="cloud",signal="traces"} 20
# TYPE weir_pending_items gauge
weir_pending_items{destination="cloud",signal="traces"} 4
# TYPE weir_dropped_items_total counter
weir_dropped_items_total{destination="cloud",signal="traces",reason="refused_by_destination"} 6
"""
SECOND = """
weir_forwarded_items_total{destination="lab",signal="traces"} 30
weir_pending_items{destination="lab",signal="traces"} 0
"""
ALONE = """
weir_received_items_total{signal="traces",transport="grpc"} 5
weir_sampled_out_items_total{signal="traces",rule="no_destination"} 5
"""


def test_balanced_scrape_is_accepted() -> None:
    cloud = check_identity(BALANCED)["cloud", "traces"]
    assert (cloud.received, cloud.forwarded, cloud.pending) == (100, 20, 4)
    assert (cloud.sampled_out, cloud.quarantined, cloud.dropped) == (70, 0, 6)


def test_each_destination_has_its_own_drops() -> None:
    accounts = check_identity(BALANCED + SECOND)
    assert (accounts["cloud", "traces"].dropped, accounts["lab", "traces"].dropped) == (6, 0)


def test_each_signal_balances_on_its_own() -> None:
    logs = 'weir_received_items_total{signal="logs",transport="http"} '
    assert check_identity(f"{BALANCED}{logs}0\n")["cloud", "logs"].received == 0
    more, less = f"{BALANCED}{logs}1\n", BALANCED.replace("} 60", "} 59")
    for text in (more, f"{less}{logs}1\n"):
        with pytest.raises(AssertionError, match="residue"):
            check_identity(text)


def test_site_that_forwards_to_no_one_is_accepted() -> None:
    assert check_identity(ALONE)["", "traces"].sampled_out == 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('transport="grpc"} 60', 'transport="grpc"} 61'),
        ('transport="grpc"} 60', 'transport="grpc"} 59'),
        ('destination="cloud",signal="traces"} 20', 'destination="cloud",signal="traces"} 27'),
        ('rule="rate"} 70', 'rule="rate"} 69.5'),
        ('destination="cloud",signal="traces"} 4', 'destination="cloud",signal="traces"} -4'),
    ],
)
def test_residue_is_found(before: str, after: str) -> None:
    assert before in BALANCED
    with pytest.raises(AssertionError):
        check_identity(BALANCED.replace(before, after, 1))


def test_series_that_occurs_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="occurs twice"):
        parse(ALONE + ALONE)
