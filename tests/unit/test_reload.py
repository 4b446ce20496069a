"""What of another configuration can hold at once, and what waits for a restart."""

from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.config import SiteConfig
from gateway.contract.plan import compile_plan
from gateway.errors import InvalidConfigError
from gateway.reload import applicable, prepare

CERT, KEY, CA = Path("a.pem"), Path("a.key"), Path("ca.pem")


def site(**sections: Any) -> SiteConfig:
    return SiteConfig.model_validate(sections)


@pytest.mark.parametrize(
    "section",
    [
        {"contracts": (Path("contracts"),)},
        {"sampling": {"rate": 0.5}},
        {"receive": {"tokens_file": Path("tokens.json")}},
        {"receive": {"queue_max": 1 << 27}},
        {"receive": {"device": {"requests_per_second": 5}}},
        {"receive": {"http": {"body_max": 1 << 20}}},
    ],
)
def test_what_changes_at_once(section: dict[str, Any]) -> None:
    wanted = site(**section)
    assert applicable(site(), wanted) == (wanted, ())


@pytest.mark.parametrize(
    ("section", "waiting"),
    [
        ({"data_dir": Path("other")}, "data_dir"),
        ({"receive": {"grpc": {"message_max": 1 << 20}}}, "receive.grpc.message_max"),
        ({"receive": {"http": {"listen": "127.0.0.1:1"}}}, "receive.http.listen"),
        ({"receive": {"insecure": True}}, "receive.insecure"),
        ({"journal": {"group": 0.5}}, "journal.group"),
        ({"alertmanagers": ("http://127.0.0.1:1",)}, "alertmanagers"),
        ({"api": {"tokens_file": Path("tokens.json")}}, "api.tokens_file"),
    ],
)
def test_what_waits_for_a_restart_is_named_and_not_taken(
    section: dict[str, Any], waiting: str
) -> None:
    assert applicable(site(), site(**section)) == (site(), (waiting,))


def test_other_files_of_the_same_kind_of_tls_are_taken_and_another_kind_waits() -> None:
    plain, tls = site(), site(receive={"tls": {"cert": CERT, "key": KEY}})
    renewed = site(receive={"tls": {"cert": Path("b.pem"), "key": Path("b.key")}})
    mutual = site(receive={"tls": {"cert": CERT, "key": KEY, "client_ca": CA}})
    assert applicable(tls, renewed) == (renewed, ())
    assert applicable(plain, tls) == (plain, ("receive.tls.cert", "receive.tls.key"))
    assert applicable(tls, mutual) == (tls, ("receive.tls.client_ca",))


def test_laws_are_checked_between_what_changes_and_what_waits(tmp_path: Path) -> None:
    """The address stays open to others, so that the tokens must not go."""
    (tmp_path / "tokens.json").write_text("[]")
    for name in ("a.pem", "a.key"):
        (tmp_path / name).touch()
    tls = {"cert": tmp_path / "a.pem", "key": tmp_path / "a.key"}
    receive = {"tls": tls, "tokens_file": tmp_path / "tokens.json"}
    now = site(receive={**receive, "http": {"listen": "0.0.0.0:4318"}})
    wanted = site(receive={"tls": tls})
    rooms: Any = None  # not asked before the laws hold
    with pytest.raises(InvalidConfigError, match=r"receive.http.listen can be reached"):
        prepare(rooms, now, lambda: (wanted, compile_plan((), wanted.sampling)))


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("receive: {tokens_file: bad.json}\n", 1, "is not valid YAML"),
        ("api: {tokens_file: bad.json}\n", 1, "bad.json"),
        ("receive: {tls: {cert: bad.json, key: bad.json}}\n", 1, "not a PEM certificate"),
        ("receive: {tokens_file: good.json}\n", 0, ""),
    ],
)
def test_check_finds_what_a_start_refuses_of_named_files(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    code: int,
    told: str,
) -> None:
    (tmp_path / "bad.json").write_text("[{")
    (tmp_path / "good.json").write_text("[]")
    file = tmp_path / "site.yaml"
    file.write_text(text)
    monkeypatch.setattr("sys.argv", ["weir", "check", str(file)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert told in capsys.readouterr().out
