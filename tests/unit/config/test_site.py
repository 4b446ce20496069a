"""A site file is read with exact findings, and the laws between its knobs hold."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import SiteConfig, describe, load_site
from gateway.config.rules import DESCRIPTIONS, FindingRule
from gateway.config.sections import GrpcSection, MeasureSection, OtlpSection
from gateway.errors import Finding, InvalidConfigError

WHOLE = """\
site: {id: dock-7, cluster: dock, region: eu-west}
data_dir: ./data
contracts: []
receive:
  grpc: {listen: 127.0.0.1:4317, message_max: 4MiB}
  http: {listen: 127.0.0.1:4318, body_max: 20MiB}
  tls: {cert: null, key: null, client_ca: null}
  tokens_file: null
  queue_max: 64MiB
journal: {group: 5ms, fsync: true, bytes_max: 2GiB}
store: {bytes_max: 10GiB, age_max: 24h}
sampling: {keep: [error, duration > 2s], rate: 0.25, bytes_per_second: 1MiB}
forward:
  - name: cloud
    otlp: {endpoint: "http://127.0.0.1:5318", protocol: http/protobuf, compression: zstd}
    bytes_per_second: null
alertmanagers: ["http://127.0.0.1:9093"]
api: {listen: 127.0.0.1:9464, tokens_file: null}
"""


def findings_of(folder: Path, text: str, *overrides: str) -> tuple[Finding, ...]:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfigError) as caught:
        load_site(path, overrides)
    return caught.value.findings


def told(findings: tuple[Finding, ...]) -> list[tuple[str, int]]:
    return [(finding.rule, finding.line) for finding in findings]


def loaded(folder: Path, text: str, *overrides: str) -> SiteConfig:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return load_site(path, overrides)


def test_no_file_means_defaults_on_loopback() -> None:
    site = load_site(None)
    assert site == SiteConfig()
    assert site.receive.grpc.listen == "127.0.0.1:4317"
    assert site.receive.queue_max == 64 << 20
    assert site.journal.group == 0.005
    assert site.sampling.keep == ("error",)
    assert site.retrieve.dive_bytes_max == 8 << 20


def test_the_published_site_file_is_read(tmp_path: Path) -> None:
    site = loaded(tmp_path, WHOLE)
    assert site.site.id == "dock-7"
    assert site.data_dir == tmp_path / "data"
    assert site.store.age_max == 86_400
    assert site.sampling.bytes_per_second == 1 << 20
    assert site.forward[0].otlp.timeout == 10
    assert site.forward[0].otlp.protocol == "http/protobuf"


def test_empty_file_means_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, "# nothing\n").receive == SiteConfig().receive


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    (finding,) = findings_of(tmp_path, "receive:\n  grpc:\n    lisen: 127.0.0.1:0\n")
    assert finding.rule == FindingRule.UNKNOWN_KEY
    assert (finding.line, finding.column) == (3, 5)
    assert finding.message == "unknown key 'lisen' in receive.grpc"
    assert finding.instead == "did you mean 'listen'?"


def test_unknown_key_without_a_near_one_lists_the_known(tmp_path: Path) -> None:
    (finding,) = findings_of(tmp_path, "receive:\n  grpc: {zzz: 1}\n")
    assert finding.instead == "known here are: listen, message_max"


def test_all_findings_come_at_once(tmp_path: Path) -> None:
    text = (
        "site: {id: 'a b', regoin: x}\n"
        "receive:\n"
        "  grpc: {listen: 127.0.0.1:99999, message_max: 4MB}\n"
        "journal: {group: 5, fsync: 'yes'}\n"
        "sampling: {rate: 1.5, keep: [error, confidence < 0.5]}\n"
        "journal: {}\n"
    )
    assert sorted(told(findings_of(tmp_path, text)), key=lambda each: each[1]) == [
        ("invalid-value", 1),
        ("unknown-key", 1),
        ("invalid-value", 3),
        ("invalid-value", 3),
        ("invalid-value", 4),
        ("wrong-type", 4),
        ("out-of-range", 5),
        ("keep-rule", 5),
        ("duplicate-key", 6),
    ]


def test_bounds_are_told_in_their_unit(tmp_path: Path) -> None:
    text = "receive: {queue_max: 20TiB}\nstore: {age_max: 1s}\n"
    first, second = findings_of(tmp_path, text)
    assert "must be at most 16GiB, not 20TiB" in first.message
    assert "must be at least 1m, not 1s" in second.message


def test_missing_key_is_told_at_its_parent(tmp_path: Path) -> None:
    text = "forward:\n  - name: cloud\n    otlp: {protocol: grpc}\n"
    (finding,) = findings_of(tmp_path, text)
    assert (finding.rule, finding.line) == ("missing", 3)
    assert finding.message == "forward[0].otlp.endpoint is missing"


@pytest.mark.parametrize("listen", ["0.0.0.0:4317", "[::]:4317", "dock.example.com:4317"])
def test_listener_off_loopback_needs_tls_and_identity(tmp_path: Path, listen: str) -> None:
    (finding,) = findings_of(tmp_path, f'receive:\n  grpc: {{listen: "{listen}"}}\n')
    assert (finding.rule, finding.line) == ("exposed-listener", 2)
    assert "without TLS and identity" in finding.message
    assert "receive.insecure: true" in finding.instead


def test_api_off_loopback_needs_tls_and_identity(tmp_path: Path) -> None:
    (finding,) = findings_of(tmp_path, "api: {listen: 0.0.0.0:9464}\n")
    assert finding.rule == "exposed-listener"
    assert "api.insecure: true" in finding.instead


def test_insecure_is_written_out_per_section(tmp_path: Path) -> None:
    text = "receive: {insecure: true, http: {listen: 0.0.0.0:4318}}\napi: {listen: 0.0.0.0:1}\n"
    assert told(findings_of(tmp_path, text)) == [("exposed-listener", 2)]


@pytest.mark.parametrize(
    ("identity", "lacks"),
    [("client_ca: ca.pem", None), ("", "without identity")],
)
def test_tls_with_client_ca_is_enough(tmp_path: Path, identity: str, lacks: str | None) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("pem", encoding="utf-8")
    text = (
        "receive:\n  grpc: {listen: 0.0.0.0:0}\n"
        f"  tls: {{cert: cert.pem, key: key.pem, {identity}}}\n"
    )
    if lacks is None:
        assert loaded(tmp_path, text).receive.tls.cert == tmp_path / "cert.pem"
    else:
        (finding,) = findings_of(tmp_path, text)
        assert lacks in finding.message


def test_tokens_file_is_an_identity(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "tokens"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    text = "api: {listen: 0.0.0.0:0, tokens_file: tokens, tls: {cert: cert.pem, key: key.pem}}\n"
    assert loaded(tmp_path, text).api.tokens_file == tmp_path / "tokens"


def test_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("x", encoding="utf-8")
    text = "receive:\n  tls: {cert: cert.pem}\n"
    assert told(findings_of(tmp_path, text)) == [("tls-pair", 2)]


def test_files_that_are_named_must_exist(tmp_path: Path) -> None:
    text = "contracts: [nowhere/]\nreceive: {tokens_file: none.txt}\n"
    assert sorted(told(findings_of(tmp_path, text))) == [("no-such-file", 1), ("no-such-file", 2)]


def test_two_listeners_cannot_share_a_port(tmp_path: Path) -> None:
    text = "receive:\n  grpc: {listen: 127.0.0.1:5000}\n  http: {listen: 127.0.0.1:5000}\n"
    assert told(findings_of(tmp_path, text)) == [("duplicate-name", 3)]


def test_port_zero_may_be_shared(tmp_path: Path) -> None:
    text = "receive:\n  grpc: {listen: 127.0.0.1:0}\n  http: {listen: 127.0.0.1:0}\n"
    assert loaded(tmp_path, text).receive.http.listen == "127.0.0.1:0"


@pytest.mark.parametrize(
    "text",
    [
        "receive: {queue_max: 1MiB}\n",
        "receive: {queue_max: 20MiB}\n",
        "journal: {bytes_max: 1MiB}\n",
        "store: {age_max: 1m, segment_age: 2m}\n",
        "retrieve: {poll_hold: 2m}\n",
    ],
)
def test_limits_that_contradict_each_other_are_refused(tmp_path: Path, text: str) -> None:
    assert {rule for rule, _ in told(findings_of(tmp_path, text))} == {"knob-law"}


def test_keys_of_the_journal_are_files_beside_the_site_file_or_a_command(tmp_path: Path) -> None:
    for name in ("new.key", "old.key"):
        (tmp_path / name).touch()
    text = "journal: {encryption: {key_file: new.key, key_files: [old.key]}}\n"
    found = loaded(tmp_path, text).journal.encryption
    assert (found.key_file, found.key_files) == (tmp_path / "new.key", (tmp_path / "old.key",))
    text = "journal: {encryption: {key_command: [unseal, journal]}}\n"
    assert loaded(tmp_path, text).journal.encryption.key_command == ("unseal", "journal")


def test_keys_of_the_journal_that_contradict_or_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.key").touch()
    text = "journal:\n  encryption:\n    key_file: a.key\n    key_command: [unseal]\n"
    assert told(findings_of(tmp_path, text)) == [("knob-law", 4)]
    text = "journal:\n  encryption:\n    key_file: b.key\n    key_files: [a.key, c.key]\n"
    assert told(findings_of(tmp_path, text)) == [("no-such-file", 3), ("no-such-file", 4)]


def test_largest_body_may_fill_the_queue_but_for_its_reserve(tmp_path: Path) -> None:
    text = "receive: {queue_max: 16MiB, grpc: {message_max: 1MiB}, http: {body_max: 15MiB}}\n"
    assert loaded(tmp_path, text).receive.http.body_max == 15 << 20


def test_remote_write_is_told_to_be_scraped_instead(tmp_path: Path) -> None:
    text = "remote_write: [{url: 'http://127.0.0.1:9090/api/v1/write'}]\n"
    (finding,) = findings_of(tmp_path, text)
    assert (finding.rule, finding.line, finding.column) == ("not-available", 1, 1)
    assert "let Prometheus scrape http://127.0.0.1:9464/metrics" in finding.instead
    assert load_site(None, ["remote_write=[]"]).remote_write == ()


@pytest.mark.parametrize(
    ("otlp", "rule"),
    [
        ("{endpoint: 'ftp://a'}", "url"),
        ("{endpoint: 'http://'}", "url"),
        ("{endpoint: 'http://a:x'}", "url"),
        ("{endpoint: 'http://[::1'}", "url"),
        ("{endpoint: 'http://u:p@127.0.0.1'}", "url"),
        ("{endpoint: 'http://127.0.0.1?x=1'}", "url"),
        ("{endpoint: 'http://cloud.example.com:4318'}", "plaintext-destination"),
        ("{endpoint: 'https://a', headers: {Content-Type: x}}", "header"),
        ("{endpoint: 'https://a', headers: {'a b': x}}", "header"),
        ("{endpoint: 'https://a', headers: {x: 'é'}}", "header"),
        ("{endpoint: 'https://a', headers: {x: a, X: b}}", "header"),
        ("{endpoint: 'https://a', protocol: http/json}", "unknown-value"),
    ],
)
def test_destination_that_cannot_work_is_refused(tmp_path: Path, otlp: str, rule: str) -> None:
    text = f"forward:\n  - name: cloud\n    otlp: {otlp}\n"
    assert told(findings_of(tmp_path, text)) == [(rule, 3)]


def test_plaintext_off_the_machine_is_written_out(tmp_path: Path) -> None:
    otlp = "{endpoint: 'http://collector:4318', insecure: true}"
    site = loaded(tmp_path, f"forward:\n  - name: cloud\n    otlp: {otlp}\n")
    assert site.forward[0].otlp.insecure


def test_destinations_have_different_names(tmp_path: Path) -> None:
    entry = "  - {name: cloud, otlp: {endpoint: 'https://a'}}\n"
    assert told(findings_of(tmp_path, "forward:\n" + entry + entry)) == [("duplicate-name", 3)]


def test_value_of_a_header_is_never_shown(tmp_path: Path) -> None:
    otlp = "{endpoint: 'https://a', headers: {authorization: 12345678}}"
    (finding,) = findings_of(tmp_path, f"forward:\n  - name: cloud\n    otlp: {otlp}\n")
    assert "12345678" not in str(finding)


def test_override_is_yaml(tmp_path: Path) -> None:
    site = loaded(
        tmp_path,
        WHOLE,
        "receive.grpc.listen=127.0.0.1:0",
        "journal.fsync=false",
        "store.age_max=2h",
        "sampling.keep=[error, duration > 1s]",
        "forward.0.otlp.headers={x-team: dock}",
        "forward.1={name: second, otlp: {endpoint: 'https://b.example.com'}}",
        "measure.drift_tick=500ms",
    )
    assert site.receive.grpc.listen == "127.0.0.1:0"
    assert site.journal.fsync is False
    assert site.store.age_max == 7200
    assert site.sampling.keep == ("error", "duration > 1s")
    assert site.forward[0].otlp.headers == {"x-team": "dock"}
    assert site.forward[1].name == "second"
    assert site.measure.drift_tick == 0.5


def test_overrides_build_on_defaults() -> None:
    site = load_site(None, ["forward.0.name=a", "forward.0.otlp.endpoint=http://127.0.0.1:1"])
    assert site.forward[0].otlp.endpoint == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("nonsense", "override"),
        ("=1", "override"),
        ("a..b=1", "override"),
        ("site.region.x=1", "override"),
        ("forward.3.name=x", "override"),
        ("journal.fsnc=true", "unknown-key"),
        ("journal.fsync=[", "yaml-syntax"),
        ("journal.fsync=1", "wrong-type"),
        ("site=3", "wrong-type"),
        ("api.listen=0.0.0.0:1", "exposed-listener"),
    ],
)
def test_faulty_override_is_named(override: str, rule: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_site(None, ["site.region=x", override])
    (finding,) = caught.value.findings
    assert finding.rule == rule
    assert finding.file == f"--set {override.partition('=')[0]}"
    assert finding.line == 0


def test_paths_are_relative_to_where_they_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    site = loaded(folder, "data_dir: here\n")
    assert site.data_dir == folder / "here"
    assert loaded(folder, "data_dir: here\n", "data_dir=there").data_dir == Path("there")
    assert load_site(folder / "site.yaml", data_dir=Path("away")).data_dir == Path("away")
    assert loaded(folder, "site: {id: a}\n").data_dir == Path("data")


def test_file_that_is_not_there_is_one_clear_finding(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "no.yaml", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(InvalidConfigError) as caught:
            load_site(path)
        (finding,) = caught.value.findings
        assert finding.rule == "unreadable"
        assert why in finding.message


def test_bare_numbers_are_durations_in_code_only(tmp_path: Path) -> None:
    assert OtlpSection(endpoint="http://a", timeout=2.5).timeout == 2.5
    assert GrpcSection(message_max=4096).message_max == 4096
    assert MeasureSection(drift_tick=1).drift_tick == 1
    (finding,) = findings_of(tmp_path, "measure: {drift_tick: 10}\n")
    assert finding.instead == "write the unit of the duration, such as 10s"
    assert loaded(tmp_path, "journal: {group: 0}\n").journal.group == 0


@pytest.mark.parametrize("text", ["- a\n", "just text\n", "3\n"])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (finding,) = findings_of(tmp_path, text)
    assert finding.rule == "wrong-type"


def test_every_knob_is_described() -> None:
    knobs = describe()
    assert len({knob.path for knob in knobs}) == len(knobs) > 50
    for knob in knobs:
        assert knob.description, knob.path
        assert knob.type, knob.path
    table = {knob.path: knob for knob in knobs}
    assert table["receive.queue_max"].default == "64MiB"
    assert table["receive.queue_max"].type == "size, 1KiB to 16GiB"
    assert table["journal.group"].default == "5ms"
    assert table["forward[].otlp.endpoint"].default == "required"
    assert table["sampling.keep"].default == "[error]"


def test_every_rule_is_described() -> None:
    assert set(DESCRIPTIONS) == set(FindingRule)


def test_flood_of_faults_is_cut(tmp_path: Path) -> None:
    text = "".join(f"key_{number}: 1\n" for number in range(500))
    found = findings_of(tmp_path, text)
    assert len(found) == 201
    assert found[0].rule == "limit"


KNOBS = [knob.path for knob in describe() if "[]" not in knob.path]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["64MiB", "5s", "0.0.0.0:1", "http://127.0.0.1:1", "error", math.inf]),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KNOBS), VALUES, max_size=6), st.booleans())
def test_any_value_anywhere_is_accepted_or_a_finding(
    tmp_path: Path, chosen: dict[str, Any], as_file: bool
) -> None:
    tree: dict[str, Any] = {}
    for path, value in chosen.items():
        *parents, last = path.split(".")
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    overrides = [
        f"{path}={yaml.safe_dump(value, default_flow_style=True)}" for path, value in chosen.items()
    ]
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    with suppress(InvalidConfigError):
        site = load_site(file) if as_file else load_site(None, overrides)
        assert isinstance(site, SiteConfig)


def test_a_window_is_one_text_or_several_and_its_knobs_are_described(tmp_path: Path) -> None:
    text = "forward:\n  - name: cloud\n    otlp: {endpoint: 'http://127.0.0.1:1'}\n    window: "
    assert loaded(tmp_path, text + "01:00-05:00\n").forward[0].window == ("01:00-05:00",)
    site = loaded(tmp_path, text + "['22:00-04:00Z', '12:00-13:00']\n    live_age: 0s\n")
    assert site.forward[0].window == ("22:00-04:00Z", "12:00-13:00")
    assert site.forward[0].live_age == 0.0
    knobs = {knob.path: knob for knob in describe()}
    assert knobs["forward[].window"].type == "list of daily hours"
    assert knobs["forward[].live_age"].default == "15m"
    assert knobs["outbox.bytes_max"].default == "4GiB"


@pytest.mark.parametrize(
    "window", ["nightly", "[01:00-05:00, 5-6]", "01:00-01:00", "60", "[]x", "{from: 1}"]
)
def test_a_window_that_cannot_be_read_says_what_to_write(tmp_path: Path, window: str) -> None:
    otlp = "otlp: {endpoint: 'http://127.0.0.1:1'}"
    findings = findings_of(
        tmp_path, f"forward:\n  - name: cloud\n    {otlp}\n    window: {window}\n"
    )
    assert findings
    assert all(
        "01:00-05:00" in finding.instead or finding.rule == "yaml-syntax" for finding in findings
    )
