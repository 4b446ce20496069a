"""The data directory: private, checked at the start, with a key that is made once."""

import os
import stat
from pathlib import Path

import pytest

from gateway.errors import JournalUnavailableError, StartError
from gateway.home import SITE_KEY_BYTES, Home, open_home, site_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_is_made_with_all_parents_and_belongs_to_its_user(tmp_path: Path) -> None:
    home = open_home(tmp_path / "deep" / "data")
    for folder in (home.root, home.dives, home.quarantine):
        assert folder.is_dir()
        assert mode(folder) == 0o700
    assert open_home(home.root) == home


def test_paths_are_absolute_and_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = open_home(Path("data"))
    assert home.root == tmp_path / "data"
    paths = [home.journal, home.store, home.database, home.audit, home.dives]
    assert len({*paths, home.quarantine}) == len(paths) + 1
    assert all(path.parent == home.root for path in paths)


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    before = sorted(tmp_path.iterdir())
    home.probe()
    assert sorted(tmp_path.iterdir()) == before


def test_probe_of_a_directory_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailableError, match="cannot be written"):
        Home(tmp_path / "gone").probe()


def test_file_in_place_of_the_directory_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("")
    for root in (path, path / "below"):
        with pytest.raises(StartError, match="--data-dir") as caught:
            open_home(root)
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_free_space_is_what_the_system_says(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    assert 0 < open_home(tmp_path).free_bytes() <= state.f_blocks * state.f_frsize


def test_key_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    key = site_key(home)
    assert len(key) == SITE_KEY_BYTES
    assert site_key(home) == key
    assert mode(tmp_path / "site.key") == 0o400
    assert not (tmp_path / "site.new").exists()


def test_two_sites_have_two_keys(tmp_path: Path) -> None:
    assert site_key(open_home(tmp_path / "a")) != site_key(open_home(tmp_path / "b"))


def test_half_a_key_of_a_crash_is_made_anew(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    (tmp_path / "site.new").write_bytes(b"half")
    assert len(site_key(home)) == SITE_KEY_BYTES


@pytest.mark.parametrize("bits", [0o440, 0o404, 0o444, 0o620])
def test_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, bits: int) -> None:
    home = open_home(tmp_path)
    site_key(home)
    path = tmp_path / "site.key"
    path.chmod(bits)
    with pytest.raises(StartError, match=f"chmod 0400 {path}"):
        site_key(home)


@pytest.mark.parametrize("content", [b"", b"short", bytes(SITE_KEY_BYTES + 1)])
def test_key_of_another_length_is_refused_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    home = open_home(tmp_path)
    path = tmp_path / "site.key"
    path.write_bytes(content)
    path.chmod(0o400)
    with pytest.raises(StartError, match=f"{len(content)} bytes instead of {SITE_KEY_BYTES}"):
        site_key(home)
    assert path.read_bytes() == content


def test_key_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    (tmp_path / "site.key").mkdir(mode=0o700)
    with pytest.raises(StartError, match="cannot be used"):
        site_key(home)


def test_what_is_set_aside_is_private_and_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = open_home(tmp_path)
    home.set_aside("1.zst", b"12345")
    home.set_aside("1.zst", b"1234567")  # a replay meets the same batch again
    path = home.quarantine / "1.zst"
    assert path.read_bytes() == b"1234567"
    assert mode(path) == 0o600
    monkeypatch.setattr("gateway.home.QUARANTINE_BYTES_MAX", 10)
    with pytest.raises(OSError, match="full"):
        home.set_aside("2.zst", b"1234")
    home.set_aside("2.zst", b"123")
    monkeypatch.setattr("gateway.home.QUARANTINE_FILES_MAX", 2)
    with pytest.raises(OSError, match="full"):
        home.set_aside("3.zst", b"")
    assert len(list(home.quarantine.iterdir())) == 2
