"""Laws between the knobs of a site file.

Law: pure but for asking whether a file exists; every violation is noted at the line of the knob
that a person would change.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from gateway.batch import AnomalyKind
from gateway.config.keep import SUBJECT_DURATION, SUBJECT_ERROR, KeepRule, parse_rule
from gateway.config.marks import Document
from gateway.config.marks import Path as At
from gateway.config.rules import FindingRule
from gateway.config.sections import (
    RESERVE_PARTS,
    OtlpSection,
    ReceiveSection,
    SiteConfig,
    TlsSection,
)
from gateway.config.units import format_size, is_loopback, split_address
from gateway.config.validate import Checked, dotted, nearest

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,8192}")
# The sender owns these; a second value of them breaks the request.
OWN_HEADERS: Final = frozenset(
    {"content-type", "content-encoding", "content-length", "host", "transfer-encoding", "te"}
)


def check_laws(checked: Checked[SiteConfig], document: Document) -> None:
    """Check all laws between the knobs that are sound."""
    site = checked.value
    if site is None:
        return
    _check_listeners(checked, site, document)
    _check_tls(checked, site, document)
    _check_limits(checked, site, document)
    _check_sampling(site, document)
    _check_destinations(checked, site, document)
    _check_retrain(site, document)
    _check_files(checked, site, document)


def parse_site_rule(text: str) -> KeepRule:
    """Read a site-wide keep rule. Raises: ValueError, also when it names a signal."""
    rule = parse_rule(text)
    if rule.subject not in (SUBJECT_ERROR, SUBJECT_DURATION):
        raise ValueError(
            "site-wide rules know only error and duration; "
            f"write the rule about {rule.subject} into the contract that declares it"
        )
    return rule


def _check_listeners(checked: Checked[SiteConfig], site: SiteConfig, document: Document) -> None:
    receive, api = site.receive, site.api
    seen: dict[tuple[str, int], At] = {}
    for path, listen, tls, tokens, insecure in (
        (
            ("receive", "grpc"),
            receive.grpc.listen,
            receive.tls,
            receive.tokens_file,
            receive.insecure,
        ),
        (
            ("receive", "http"),
            receive.http.listen,
            receive.tls,
            receive.tokens_file,
            receive.insecure,
        ),
        (("api",), api.listen, api.tls, api.tokens_file, api.insecure),
    ):
        at: At = (*path, "listen")
        host, port = split_address(listen)
        twin = seen.setdefault((host, port), at)
        if port and twin != at:
            message = f"{dotted(at)} is the address of {dotted(twin)} too"
            document.add(at, FindingRule.DUPLICATE_NAME, message, "write another port, or 0")
        room = path[0]
        sound = all(checked.is_sound(room, knob) for knob in ("tls", "tokens_file", "insecure"))
        if not is_loopback(host) and not insecure and sound:
            _check_exposed(document, at, room, tls, has_tokens=tokens is not None)


def _check_exposed(
    document: Document, at: At, room: str, tls: TlsSection, *, has_tokens: bool
) -> None:
    lacks = []
    if tls.cert is None or tls.key is None:
        lacks.append("TLS")
    if tls.client_ca is None and not has_tokens:
        lacks.append("identity")
    if lacks:
        document.add(
            at,
            FindingRule.EXPOSED_LISTENER,
            f"{dotted(at)} can be reached from other machines without {' and '.join(lacks)}",
            f"set {room}.tls.cert and key, and {room}.tls.client_ca or {room}.tokens_file; "
            f"listen on 127.0.0.1; or write {room}.insecure: true",
        )


def _check_tls(checked: Checked[SiteConfig], site: SiteConfig, document: Document) -> None:
    for room, tls in (("receive", site.receive.tls), ("api", site.api.tls)):
        at: At = (room, "tls")
        if not checked.is_sound(*at):
            continue
        if (tls.cert is None) != (tls.key is None):
            lacking = "key" if tls.key is None else "cert"
            message = f"{dotted(at)}.{lacking} is missing beside the other one"
            document.add(at, FindingRule.TLS_PAIR, message, "write both cert and key, or neither")
        elif tls.client_ca is not None and tls.cert is None:
            message = f"{dotted(at)}.client_ca needs a certificate of the listener too"
            document.add((*at, "client_ca"), FindingRule.TLS_PAIR, message, "write cert and key")


def _check_limits(checked: Checked[SiteConfig], site: SiteConfig, document: Document) -> None:
    receive, retrieve = site.receive, site.retrieve
    _check_largest_bodies(checked, receive, document)
    laws = (
        (
            ("receive", "grpc", "message_max"),
            receive.grpc.message_max,
            ("journal", "bytes_max"),
            site.journal.bytes_max,
        ),
        (
            ("receive", "http", "body_max"),
            receive.http.body_max,
            ("journal", "bytes_max"),
            site.journal.bytes_max,
        ),
        (
            ("store", "segment_age"),
            site.store.segment_age,
            ("store", "age_max"),
            site.store.age_max,
        ),
        (("retrieve", "poll_hold"), retrieve.poll_hold, ("retrieve", "lease"), retrieve.lease),
    )
    encryption = site.journal.encryption
    if encryption.key_file is not None and encryption.key_command:
        document.add(
            ("journal", "encryption", "key_command"),
            FindingRule.KNOB_LAW,
            "journal.encryption has a key_file and a key_command",
            "keep one of them; keys for reading go into key_files",
        )
    for small, low, large, high in laws:
        if low > high and checked.is_sound(*small) and checked.is_sound(*large):
            unit = format_size(int(high)) if isinstance(high, int) else f"{high:g}s"
            document.add(
                small if small in document.values else large,
                FindingRule.KNOB_LAW,
                f"{dotted(small)} is above {dotted(large)} ({unit})",
                f"lower {dotted(small)} or raise {dotted(large)}",
            )


def _check_largest_bodies(
    checked: Checked[SiteConfig], receive: ReceiveSection, document: Document
) -> None:
    """A body of the largest size must fit into the account less its reserve, or it never would."""
    queue: At = ("receive", "queue_max")
    most = receive.queue_max - receive.queue_max // RESERVE_PARTS
    for knob, size in (
        (("receive", "grpc", "message_max"), receive.grpc.message_max),
        (("receive", "http", "body_max"), receive.http.body_max),
    ):
        at: At = knob
        if size > most and checked.is_sound(*at) and checked.is_sound(*queue):
            document.add(
                at if at in document.values else queue,
                FindingRule.KNOB_LAW,
                f"{dotted(at)} is above what {dotted(queue)} leaves beside its reserve for small "
                f"bodies ({most} bytes)",
                f"lower {dotted(at)} or raise {dotted(queue)}",
            )


def _check_sampling(site: SiteConfig, document: Document) -> None:
    for index, text in enumerate(site.sampling.keep):
        try:
            parse_site_rule(text)
        except ValueError as error:
            at: At = ("sampling", "keep", index)
            message = f"{dotted(at)}: {text!r} is no site-wide rule"
            document.add(at, FindingRule.KEEP_RULE, message, str(error))


def _check_destinations(checked: Checked[SiteConfig], site: SiteConfig, document: Document) -> None:
    names: dict[str, int] = {}
    for index, forward in enumerate(site.forward):
        at: At = ("forward", index)
        twin = names.setdefault(forward.name, index)
        if twin != index:
            message = f"the name {forward.name!r} is that of forward[{twin}] too"
            document.add((*at, "name"), FindingRule.DUPLICATE_NAME, message, "write another name")
        _check_otlp(document, (*at, "otlp"), forward.otlp)
    for index, remote in enumerate(site.remote_write):
        _read_url(document, ("remote_write", index, "url"), remote.url)
    if site.remote_write or not checked.is_sound("remote_write"):
        document.add(
            ("remote_write",),
            FindingRule.NOT_AVAILABLE,
            "remote_write is not available yet",
            f"delete it and let Prometheus scrape http://{site.api.listen}/metrics",
            of_key=True,
        )
    for index, url in enumerate(site.alertmanagers):
        at = ("alertmanagers", index)
        _read_url(document, at, url)
        if url in site.alertmanagers[:index]:
            message = f"{url} is named twice"
            document.add(at, FindingRule.DUPLICATE_NAME, message, "keep one of them")


def _check_retrain(site: SiteConfig, document: Document) -> None:
    known = tuple(kind.value for kind in AnomalyKind)
    urls: dict[str, int] = {}
    for index, hook in enumerate(site.retrain):
        at: At = ("retrain", index, "url")
        url = _read_url(document, at, hook.url, is_base=False)
        if url and url.scheme == "http" and not is_loopback(url.hostname or ""):
            document.add(
                at,
                FindingRule.PLAINTEXT_DESTINATION,
                f"{dotted(at)} would carry what is wrong here off this machine in plaintext",
                "write https://",
            )
        twin = urls.setdefault(hook.url, index)
        if twin != index:
            message = f"{dotted(at)} is that of retrain[{twin}] too"
            advice = "keep one of them, with the models of both"
            document.add(at, FindingRule.DUPLICATE_NAME, message, advice)
        for place, kind in enumerate(hook.kinds):
            if kind not in known:
                message = f"{kind!r} is no kind of anomaly"
                here: At = ("retrain", index, "kinds", place)
                document.add(here, FindingRule.UNKNOWN_VALUE, message, nearest(kind, known))


def _check_otlp(document: Document, at: At, otlp: OtlpSection) -> None:
    url = _read_url(document, (*at, "endpoint"), otlp.endpoint)
    if url and url.scheme == "http" and not is_loopback(url.hostname or "") and not otlp.insecure:
        document.add(
            (*at, "endpoint"),
            FindingRule.PLAINTEXT_DESTINATION,
            f"{otlp.endpoint} would carry telemetry off this machine in plaintext",
            "write https://, or insecure: true beside the endpoint",
        )
    seen: set[str] = set()
    for name, value in otlp.headers.items():
        here: At = (*at, "headers", name)
        low = name.lower()
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            message = f"the header {name!r} has characters that cannot be sent"
            document.add(here, FindingRule.HEADER, message, "use printable ASCII", of_key=True)
        elif low in OWN_HEADERS or low.startswith("grpc-"):
            message = f"the header {name!r} is set by the sender itself"
            document.add(here, FindingRule.HEADER, message, "delete it", of_key=True)
        elif low in seen:
            message = f"the header {name!r} is there twice in different case"
            document.add(here, FindingRule.HEADER, message, "keep one of them", of_key=True)
        seen.add(low)


def _read_url(document: Document, at: At, text: str, *, is_base: bool = True) -> SplitResult | None:
    """Split a URL, or note why it cannot be used. A base is extended with a path."""
    advice = "write scheme, host and port, such as http://127.0.0.1:4318"
    try:
        url = urlsplit(text)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        sound = False
    if not sound or re.search(r"[\x00-\x20\x7f]", text):
        document.add(at, FindingRule.URL, f"{dotted(at)}: this is no http or https URL", advice)
        return None
    if url.username is not None or url.password is not None:
        message = f"{dotted(at)}: a URL with a user or password ends up in logs"
        advice = (
            "write an authorization header instead" if is_base else "delete it: calls are signed"
        )
        document.add(at, FindingRule.URL, message, advice)
    if is_base and (url.query or url.fragment):
        message = f"{dotted(at)}: a URL with query or fragment cannot be extended with a path"
        document.add(at, FindingRule.URL, message, "delete what follows the path")
    elif url.fragment:
        document.add(at, FindingRule.URL, f"{dotted(at)}: a fragment is never sent", "delete it")
    return url


def _named_files(site: SiteConfig) -> Iterator[tuple[At, Path | None]]:
    for room, tls in (("receive", site.receive.tls), ("api", site.api.tls)):
        yield (room, "tls", "cert"), tls.cert
        yield (room, "tls", "key"), tls.key
        yield (room, "tls", "client_ca"), tls.client_ca
    yield ("receive", "tokens_file"), site.receive.tokens_file
    yield ("api", "tokens_file"), site.api.tokens_file
    encryption = site.journal.encryption
    yield ("journal", "encryption", "key_file"), encryption.key_file
    for index, hook in enumerate(site.retrain):
        yield ("retrain", index, "key_file"), hook.key_file
    for index, path in enumerate(encryption.key_files):
        yield ("journal", "encryption", "key_files", index), path


def _check_files(checked: Checked[SiteConfig], site: SiteConfig, document: Document) -> None:
    for at, path in _named_files(site):
        if path is not None and not path.is_file():
            message = f"{dotted(at)}: there is no file {str(path)!r}"
            document.add(at, FindingRule.NO_SUCH_FILE, message, "correct the path")
    for index, path in enumerate(site.contracts):
        at = ("contracts", index)
        if not path.exists():
            message = f"there is no file or folder {str(path)!r}"
            document.add(at, FindingRule.NO_SUCH_FILE, message, "correct the path")
    if checked.is_sound("data_dir") and site.data_dir.exists() and not site.data_dir.is_dir():
        message = f"data_dir {str(site.data_dir)!r} is a file"
        document.add(("data_dir",), FindingRule.NO_SUCH_FILE, message, "name a folder")
