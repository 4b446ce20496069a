"""Names and texts that leave the file: scripts, reserved namespaces, placeholders.

Law: an attribute key is ASCII, because a key that looks like another one is classified as another
one by the person who reads it, and matched as itself by the program. Texts that may be in any
language must not mix look-alike scripts or hide characters. Source: Unicode TR 39, in spirit.
"""

import re
import unicodedata
from typing import Final

KEY_CHARACTERS_MAX: Final = 128
RESERVED_NAMESPACES: Final = ("weir", "redaction")
PLACEHOLDERS: Final = frozenset(
    {"", "todo", "tbd", "tba", "fixme", "xxx", "none", "n/a", "na", "unknown", "null", "?", "-"}
)
# Alphabets that share the shapes of letters.
_LOOKALIKE_SCRIPTS: Final = frozenset(
    {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "COPTIC", "CHEROKEE", "FULLWIDTH", "MATHEMATICAL"}
)
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
_KEY = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/:-]*[A-Za-z0-9_])?")
# Source: OpenTelemetry specification, "Instrument name syntax".
_METRIC_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,254}")
_SIGNAL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

# Attributes that name a device, a person or a place by their published meaning: they never leave
# as they are. Source: OpenTelemetry semantic conventions; 45 CFR 164.514(b)(2).
_IDENTIFYING: Final = frozenset(
    {
        "device.id",
        "device.serial_number",
        "host.id",
        "host.ip",
        "host.mac",
        "host.name",
        "http.target",
        "http.url",
        "net.peer.ip",
        "net.sock.peer.addr",
        "network.local.address",
        "network.peer.address",
        "process.command_args",
        "process.command_line",
        "process.owner",
        "service.instance.id",
        "session.id",
        "session.previous_id",
        "source.address",
        "destination.address",
        "url.full",
        "url.query",
    }
)
_IDENTIFYING_NAMESPACES: Final = ("client", "enduser", "geo", "patient", "user")


def name_character(character: str) -> str:
    """Name a character so that a person can find it: `U+0430 CYRILLIC SMALL LETTER A`."""
    name = unicodedata.name(character, unicodedata.category(character))
    return f"U+{ord(character):04X} {name}"


def foreign_character(key: str) -> tuple[int, str] | None:
    """Find the first character of a key that is not printable ASCII. Position counts from 1."""
    for position, character in enumerate(key, start=1):
        if not " " <= character <= "~":
            return position, character
    return None


def is_key(key: str) -> bool:
    """Tell whether a text has the form of an attribute key."""
    return len(key) <= KEY_CHARACTERS_MAX and _KEY.fullmatch(key) is not None


def is_signal_name(name: str) -> bool:
    """Tell whether a text can be a signal's name, and stand in a keep rule."""
    return _SIGNAL_NAME.fullmatch(name) is not None


def is_metric_name(name: str) -> bool:
    """Tell whether a text can be the name of a metric."""
    return _METRIC_NAME.fullmatch(name) is not None


def is_reserved(key: str) -> bool:
    """Tell whether a key lies in a namespace of the gateway."""
    return key.lower().partition(".")[0] in RESERVED_NAMESPACES


def is_identifying(key: str) -> bool:
    """Tell whether an attribute names a device, person or place by its published meaning."""
    return key in _IDENTIFYING or key.partition(".")[0] in _IDENTIFYING_NAMESPACES


def is_placeholder(text: str) -> bool:
    """Tell whether a text was never filled in."""
    plain = text.strip().lower()
    return plain in PLACEHOLDERS or plain.strip(".:!<>[](){}_ ") in PLACEHOLDERS


def text_fault(text: str) -> str | None:
    """Say what is wrong with a text that may be in any language, None if nothing is."""
    scripts: dict[str, str] = {}
    for character in text:
        if unicodedata.category(character) in _HIDDEN_CATEGORIES:
            return f"it hides the character {name_character(character)}"
        if character.isalpha():
            script = unicodedata.name(character, "").partition(" ")[0]
            if script in _LOOKALIKE_SCRIPTS:
                scripts.setdefault(script, character)
    if len(scripts) > 1:
        shown = " beside ".join(name_character(character) for character in scripts.values())
        return f"it mixes scripts that look alike: {shown}"
    if unicodedata.normalize("NFC", text) != text:
        return "it is not in Unicode normal form C"
    if not text.strip() or text != text.strip():
        return "it is empty, or begins or ends with a space"
    return None
