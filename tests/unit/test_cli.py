"""The command line: exit codes, what goes to which stream, and one clear sentence."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from gateway import __main__ as cli
from gateway.errors import StartError, WeirError
from tests.process import ROOT

EXAMPLES = ROOT / "gateway" / "contract" / "examples"

Said = tuple[int, str, str]


@pytest.fixture
def weir(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Weir":
    return Weir(monkeypatch, capsys)


class Weir:
    """Calls the command line as the console script does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        """Return exit code, standard output and standard error."""
        self._monkeypatch.setattr(sys, "argv", ["weir", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return code or 0, said.out, said.err


def test_check_of_the_examples_is_clean(weir: Weir) -> None:
    code, _, errors = weir("check", str(EXAMPLES))
    assert (code, errors) == (0, "")


def broken(folder: Path) -> Path:
    """Copy an example and misspell a key in it."""
    path = folder / "damage-net.yaml"
    shutil.copy(EXAMPLES / "damage-net.yaml", path)
    path.write_text(path.read_text().replace("owner:", "ownr:"))
    return path


def test_check_names_file_line_and_the_nearest_key(weir: Weir, tmp_path: Path) -> None:
    path = broken(tmp_path)
    line = 1 + path.read_text().split("ownr:")[0].count("\n")
    code, out, _ = weir("check", str(path))
    assert code == 1
    (found,) = [each for each in out.splitlines() if "ownr" in each]
    assert found.startswith(f"{path}:{line}:")
    assert "owner" in out


def test_run_refuses_exactly_what_check_refuses(weir: Weir, tmp_path: Path) -> None:
    path = broken(tmp_path)
    site = tmp_path / "site.yaml"
    site.write_text(f"contracts: [{path.name}]\n")
    _, checked, _ = weir("check", str(path))
    code, out, errors = weir("run", "--config", str(site), "--data-dir", str(tmp_path / "data"))
    assert (code, out) == (2, "")
    for finding in errors.splitlines():
        assert finding.split(": ")[0] in checked
    assert "ownr" in errors
    assert not (tmp_path / "data").exists()


def test_check_of_a_path_that_is_not_there_is_unusable_input(weir: Weir, tmp_path: Path) -> None:
    code, _, _ = weir("check", str(tmp_path / "gone.yaml"))
    assert code == 2


def test_check_as_json_and_sarif_can_be_read_by_machines(weir: Weir, tmp_path: Path) -> None:
    path = broken(tmp_path)
    code, out, _ = weir("check", "--format", "json", str(path))
    assert code == 1
    assert "ownr" in json.dumps(json.loads(out))
    code, out, _ = weir("check", "--format", "sarif", str(path))
    assert code == 1
    assert json.loads(out)["version"] == "2.1.0"


def test_check_tells_what_objectives_can_detect(weir: Weir) -> None:
    code, out, _ = weir("check", str(EXAMPLES / "damage-net.yaml"))
    assert code == 0
    assert "damage-net success: success, 0.999 over 30d" in out
    code, out, _ = weir("check", "--format", "json", str(EXAMPLES / "damage-net.yaml"))
    content = json.loads(out)
    assert content["findings"] == []
    assert [each["slo"] for each in content["slos"]] == ["success", "latency"]
    assert "releases" not in content


def test_release_above_its_budget_ends_with_1(weir: Weir, tmp_path: Path) -> None:
    manifest = tmp_path / "release.yaml"
    text = "model: damage-net\nversion: v2\ncurrency: USD\nexpected_inferences_per_month: {}\n"
    contract = str(EXAMPLES / "damage-net.yaml")
    manifest.write_text(text.format(2_000_000))
    code, out, _ = weir("check", "--release", str(manifest), contract)
    assert code == 0
    assert "warning: 80% of the budget are reached" in out
    manifest.write_text(text.format(2_000_001))
    code, out, _ = weir("check", "--release", str(manifest), contract)
    assert code == 1
    assert f"{manifest}:4:32: damage-net v2 is expected to cost" in out
    code, out, _ = weir("check", "--format", "json", "--release", str(manifest), contract)
    content = json.loads(out)
    assert content["findings"][0]["rule"] == "release-cost"
    assert content["releases"][0]["warning"] is True
    code, out, _ = weir("check", "--format", "sarif", "--release", str(manifest), contract)
    assert json.loads(out)["runs"][0]["results"][0]["ruleId"] == "release-cost"
    code, _, _ = weir("check", "--release", str(tmp_path / "none.yaml"), contract)
    assert code == 2


def test_unknown_format_is_refused(weir: Weir) -> None:
    code, out, errors = weir("check", "--format", "xml", str(EXAMPLES))
    assert (code, out) == (2, "")
    assert "sarif" in errors


def test_unknown_knob_on_the_command_line_is_refused_with_the_nearest(weir: Weir) -> None:
    code, out, errors = weir("run", "--set", "journal.fsink=false")
    assert (code, out) == (2, "")
    assert "'fsink'" in errors
    assert "fsync" in errors


def test_all_faults_of_a_file_are_told_at_once(weir: Weir, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("sight: {}\njournal: {group: 5}\nstore: {age_max: 1y}\n")
    code, _, errors = weir("run", "--config", str(site))
    assert code == 2
    assert {int(line.removeprefix(f"{site}:").split(":")[0]) for line in errors.splitlines()} == {
        1,
        2,
        3,
    }


def test_listener_off_loopback_without_tls_is_refused(weir: Weir, tmp_path: Path) -> None:
    code, _, errors = weir(
        "run", "--data-dir", str(tmp_path / "data"), "--set", "receive.grpc.listen=0.0.0.0:4317"
    )
    assert code == 2
    assert "receive.insecure" in errors
    assert not (tmp_path / "data").exists()


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line end with this error."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "cli", fail)


def test_known_error_is_one_sentence(weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(StartError("the port is in use"), monkeypatch)
    assert weir() == (1, "", "weir: the port is in use\n")


def test_known_errors_of_several_tasks_are_one_sentence_each(
    weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = ExceptionGroup("tasks", [WeirError("second")])
    raising(ExceptionGroup("tasks", [StartError("first"), inner]), monkeypatch)
    assert weir() == (1, "", "weir: first\nweir: second\n")


def test_unknown_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(ExceptionGroup("tasks", [StartError("first"), ValueError("a defect")]), monkeypatch)
    with pytest.raises(ExceptionGroup) as caught:
        cli.main()
    assert caught.group_contains(ValueError)


def test_without_a_command_it_tells_what_there_is(weir: Weir) -> None:
    code, out, errors = weir()
    assert code in (0, 2)
    for command in ("run", "check"):
        assert command in out + errors
