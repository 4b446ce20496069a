"""Read the journal's keys from files or from the output of a command.

Law: a key is never logged and never part of an error; a file that others could read is refused.
A command runs without a shell, for a bounded time, and may say a bounded number of bytes.
"""

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.errors import StartError
from gateway.journal.cipher import KEY_BYTES, Keys

COMMAND_S: Final = 10.0
# A key is 64 hexadecimal digits; spaces and line ends around it are no part of it.
TEXT_BYTES_MAX: Final = 4096
_PRIVATE_MASK: Final = 0o077


def load_keys(key_file: Path | None, key_command: Sequence[str], key_files: Sequence[Path]) -> Keys:
    """Read all keys: that of `key_file` or `key_command` first, then those of `key_files`.

    Raises: StartError.
    """
    keys = []
    if key_file is not None:
        keys.append(_of_file(key_file))
    if key_command:
        keys.append(_of_command(key_command))
    keys += [_of_file(path) for path in key_files]
    return Keys(keys)


def _of_file(path: Path) -> bytes:
    try:
        if path.stat().st_mode & _PRIVATE_MASK:
            raise StartError(f"{path} can be read by others; run: chmod 0400 {path}")
        with path.open("rb") as file:
            text = file.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise StartError(f"the journal key {path} cannot be read: {error.strerror}") from error
    return _parse(text, f"the file {path}")


def _of_command(command: Sequence[str]) -> bytes:
    what = f"the command {command[0]!r}"
    try:
        with subprocess.Popen(  # noqa: S603  named by the owner of the site, and no shell
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as process:
            text = _bounded(process, what)
    except OSError as error:
        raise StartError(f"{what} of the journal key cannot be run: {error.strerror}") from error
    if process.returncode:
        raise StartError(f"{what} of the journal key ended with {process.returncode}")
    return _parse(text, what)


def _bounded(process: subprocess.Popen[bytes], what: str) -> bytes:
    """Read what a command says, within its limits of time and size."""
    assert process.stdout is not None
    timer = threading.Timer(COMMAND_S, process.kill)
    timer.start()
    try:
        text = process.stdout.read(TEXT_BYTES_MAX + 1)
        if len(text) > TEXT_BYTES_MAX:
            process.kill()
        process.wait()
    finally:
        expired = not timer.is_alive()
        timer.cancel()
    if expired:
        raise StartError(f"{what} of the journal key did not end within {COMMAND_S:g} s")
    return text


def _parse(text: bytes, what: str) -> bytes:
    try:
        if len(text) > TEXT_BYTES_MAX:
            raise ValueError
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StartError(
            f"{what} gives no journal key: write {2 * KEY_BYTES} hexadecimal digits, "
            "such as those of: openssl rand -hex 32"
        )
    return key
