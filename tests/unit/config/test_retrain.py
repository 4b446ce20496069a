"""Hooks of the site file: where they may lie, what they may ask for, and the keys they name."""

import sys
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.config import RetrainSection, SiteConfig, load_site
from gateway.errors import Finding, InvalidConfigError
from gateway.forward.signing import parse_key, read_key
from gateway.reload import applicable, unusable_files

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"


def site_file(folder: Path, *hooks: str, key: str = KEY, mode: int = 0o400) -> Path:
    """Write a site file with hooks, beside their key."""
    (folder / "hook.key").write_text(key)
    (folder / "hook.key").chmod(mode)
    path = folder / "site.yaml"
    path.write_text(
        "retrain:\n" + "".join(f"  - {{key_file: hook.key, {hook}}}\n" for hook in hooks)
    )
    return path


def findings_of(path: Path) -> tuple[Finding, ...]:
    """Read a site file that is not sound."""
    with pytest.raises(InvalidConfigError) as caught:
        load_site(path)
    return caught.value.findings


def test_a_hook_needs_no_more_than_a_url_and_a_key(tmp_path: Path) -> None:
    [hook] = load_site(site_file(tmp_path, 'url: "https://train.example/start?token=x"')).retrain
    assert hook == RetrainSection(
        url="https://train.example/start?token=x", key_file=tmp_path / "hook.key"
    )
    assert (hook.models, hook.kinds, hook.severity) == ((), ("drift",), "ticket")
    assert read_key(hook.key_file) == parse_key(KEY.encode())


def test_every_knob_is_read(tmp_path: Path) -> None:
    text = (
        'url: "http://127.0.0.1:8080/", models: [a/b, c], kinds: [drift, slo_burn], severity: page'
    )
    [hook] = load_site(site_file(tmp_path, text)).retrain
    assert (hook.models, hook.kinds) == (("a/b", "c"), ("drift", "slo_burn"))
    assert hook.severity == "page"


@pytest.mark.parametrize(
    ("hook", "rule", "told"),
    [
        ('url: "http://train.example/"', "plaintext-destination", "write https://"),
        ('url: "http://192.0.2.1/"', "plaintext-destination", "write https://"),
        ('url: "ftp://train.example/"', "url", "scheme, host and port"),
        ('url: "https://:443/"', "url", "scheme, host and port"),
        ('url: "https://me:pw@train.example/"', "url", "delete it"),
        ('url: "https://train.example/#top"', "url", "delete it"),
        ('url: "https://train.example/", kinds: [drit]', "unknown-value", "did you mean 'drift'?"),
        ('url: "https://train.example/", kinds: []', "out-of-range", ""),
        ('url: "https://train.example/", severity: loud', "unknown-value", ""),
        ('url: "https://train.example/", models: ["a b"]', "invalid-value", ""),
        ('url: "https://train.example/", key: x', "unknown-key", "key_file"),
        ("models: [a]", "missing", ""),
    ],
)
def test_what_a_hook_may_not_be_is_told_with_its_line(
    tmp_path: Path, hook: str, rule: str, told: str
) -> None:
    [finding] = findings_of(site_file(tmp_path, hook))
    assert (finding.rule, finding.line) == (rule, 2)
    assert told in finding.instead


def test_one_url_is_one_hook(tmp_path: Path) -> None:
    url = 'url: "https://train.example/"'
    [finding] = findings_of(site_file(tmp_path, url, f"{url}, severity: page"))
    assert (finding.rule, finding.line) == ("duplicate-name", 3)


def test_a_key_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = site_file(tmp_path, 'url: "https://train.example/"')
    (tmp_path / "hook.key").unlink()
    [finding] = findings_of(path)
    assert (finding.rule, finding.line) == ("no-such-file", 2)


@pytest.mark.parametrize(
    ("key", "mode", "told"),
    [("whsec_short\n", 0o400, "holds no key of 24 to 64 bytes"), (KEY, 0o444, "chmod 0400")],
)
def test_check_refuses_a_key_that_a_start_refuses(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    mode: int,
    told: str,
) -> None:
    path = site_file(tmp_path, 'url: "https://train.example/"', key=key, mode=mode)
    monkeypatch.setattr(sys, "argv", ["weir", "check", str(path)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    shown = capsys.readouterr().out
    assert told in shown
    assert key.strip() not in shown
    [finding] = unusable_files(load_site(path))
    assert finding.rule == "key-file"


def test_another_hook_waits_for_a_restart() -> None:
    hook = RetrainSection(url="https://train.example/", key_file=Path("hook.key"))
    wanted = SiteConfig(retrain=(hook,))
    assert applicable(SiteConfig(), wanted) == (SiteConfig(), ("retrain",))
