"""Keys come from private files or a bounded command; what is wrong is said without the key."""

import sys
from pathlib import Path
from typing import Final

import pytest

from gateway.errors import StartError
from gateway.journal import keys
from gateway.journal.cipher import Keys, key_id
from gateway.journal.keys import load_keys

KEY: Final = bytes(range(32))
OTHER: Final = bytes(range(1, 33))


def key_file(path: Path, text: str, mode: int = 0o400) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def python(text: str) -> tuple[str, ...]:
    return sys.executable, "-c", text


def encrypts_with(found: Keys) -> bytes:
    sealer = found.sealer(bytes(16), 1)
    assert sealer is not None
    return sealer.key_id


def test_no_key_means_plain() -> None:
    found = load_keys(None, (), ())
    assert not found.encrypt
    assert found.sealer(bytes(16), 1) is None


def test_the_first_key_encrypts_and_all_decrypt(tmp_path: Path) -> None:
    first = key_file(tmp_path / "first", f"  {KEY.hex()}\n")
    second = key_file(tmp_path / "second", OTHER.hex().upper())
    found = load_keys(first, (), (second,))
    assert encrypts_with(found) == key_id(KEY)
    assert found.knows(key_id(KEY))
    assert found.knows(key_id(OTHER))
    assert encrypts_with(load_keys(None, (), (second, first))) == key_id(OTHER)


def test_a_command_prints_the_key_and_gets_no_shell(tmp_path: Path) -> None:
    command = (*python("import sys; print(sys.argv[1][:64])"), KEY.hex() + "$(echo); exit 1")
    assert encrypts_with(load_keys(None, command, ())) == key_id(KEY)


@pytest.mark.parametrize(
    "text", ["", "zz" * 32, "00" * 31, "00" * 33, "é", "0" * 5000], ids=lambda text: text[:4]
)
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    path = key_file(tmp_path / "key", text)
    with pytest.raises(StartError, match="gives no journal key") as caught:
        load_keys(path, (), ())
    assert str(path) in str(caught.value)
    assert not text or text not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", KEY.hex(), 0o444)
    with pytest.raises(StartError, match="chmod 0400"):
        load_keys(path, (), ())


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read: No such file"):
        load_keys(None, (), (tmp_path / "none",))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/no/such/program",), "cannot be run: No such file"),
        (python("import sys; sys.exit(3)"), "ended with 3"),
        (python("print('0' * 10**6)"), "gives no journal key|ended with"),
        (python("print('key')"), "gives no journal key"),
    ],
)
def test_a_command_that_fails_is_one_sentence(command: tuple[str, ...], message: str) -> None:
    with pytest.raises(StartError, match=message):
        load_keys(None, command, ())


def test_a_command_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "COMMAND_S", 0.2)
    with pytest.raises(StartError, match=r"did not end within 0\.2 s"):
        load_keys(None, python("import signal; signal.pause()"), ())
