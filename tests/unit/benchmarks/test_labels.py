"""The benchmark of labels and meters runs at a tiny size."""

from benchmarks import labels


def test_labels_run() -> None:
    report = labels.run(budget_s=0.01, rows=64, table_rows=256)
    assert set(report.figures) == {
        *("steady_ns", "filling_ns", "indexing_ns", "label_ns", "cost_ns"),
    }
    assert all(figure.median > 0 for figure in report.figures.values())
