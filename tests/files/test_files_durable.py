"""A write that fails keeps the old file, leaves nothing behind, and says what happened."""

import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest

from minigrad.errors import FormatError, SaveError
from minigrad.files import load, save, write_durably

CALLS = ["open", "fchmod", "posix_fallocate", "write", "fsync", "close", "replace", "stat"]


class Faults:
    """Counts the system calls of a block and lets the n-th fail."""

    def __init__(self, monkeypatch, n=None, error=errno.EIO):
        self.count, self.n, self.error, self.failed = 0, n, error, ""
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, call):
        def wrapped(*args, **options):
            self.count += 1
            if self.count == self.n:
                self.failed = name
                if name == "close":
                    call(*args)
                raise OSError(self.error, os.strerror(self.error))
            return call(*args, **options)

        return wrapped


def attempt(folder, n, error=errno.EIO):
    """Save over an old file with the n-th system call failing: what failed, and the error."""
    save(folder / "a.mgrd", {"w": np.zeros(10)})
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, n, error)
        try:
            save(folder / "a.mgrd", {"w": np.ones(10)})
        except SaveError as caught:
            return faults, caught
    return faults, None


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
def test_any_failing_system_call_leaves_a_whole_file_and_no_leftover(tmp_path, error):
    calls = attempt(tmp_path, None)[0].count
    assert calls > 10
    phases = set()
    for n in range(1, calls + 1):
        faults, caught = attempt(tmp_path, n, error)
        assert os.listdir(tmp_path) == ["a.mgrd"], n
        done = load(tmp_path / "a.mgrd")["w"][0] == 1
        if caught is None:
            assert done and faults.failed in {
                "close",
                "stat",
            }  # of the folder, after everything; of a look at the disk's space
            continue
        assert caught.errno == error and caught.path == os.path.realpath(tmp_path / "a.mgrd")
        assert caught.needed > 80 and (error != errno.ENOSPC or caught.hint)
        assert done == (caught.phase == "flush the folder")
        phases.add(caught.phase)
    assert phases >= {
        "create the temporary",
        "reserve the space",
        "write",
        "flush",
        "close",
        "rename",
        "flush the folder",
    }


def test_file_systems_that_cannot_reserve_space_are_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    save(tmp_path / "a.mgrd", {"w": np.ones(10)})
    assert load(tmp_path / "a.mgrd")["w"].sum() == 10


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_permissions_is_written_to(tmp_path, monkeypatch, number):
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fchmod", lambda *_: (_ for _ in ()).throw(OSError(number, "not here")))
    write_durably(tmp_path / "a", [b"new"], nbytes=3)
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("nbytes", [2, 10])
def test_a_wrong_count_of_bytes_is_found_before_the_old_file_is_replaced(tmp_path, nbytes):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(SaveError, match="announced"):
        write_durably(tmp_path / "a", [b"abc"], nbytes=nbytes)
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_short_writes_are_carried_on(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    write_durably(tmp_path / "a", [b"0123456789" * 10, b"", b"end"], nbytes=103)
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 10 + b"end"


def test_an_interrupt_leaves_the_old_file(tmp_path):
    def pieces():
        yield b"half"
        raise KeyboardInterrupt

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_durably(tmp_path / "a", pieces(), nbytes=8)
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


IMPORTS = """
import errno, os, resource, sys
import numpy as np
from minigrad.errors import SaveError
from minigrad.files import save
"""


def run(code, *args):
    """Run code in a process of its own; returns what it printed."""
    command = [sys.executable, "-c", IMPORTS + textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_file_larger_than_the_limit_is_refused(tmp_path):
    save(tmp_path / "a.mgrd", {"w": np.zeros(10)})
    code = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            save(sys.argv[1], {"w": np.ones(10_000)})
        except SaveError as error:
            print(errno.errorcode[error.errno], error.phase, error.needed)
    """
    assert run(code, tmp_path / "a.mgrd") == "EFBIG reserve the space 80234"
    assert load(tmp_path / "a.mgrd")["w"].sum() == 0 and os.listdir(tmp_path) == ["a.mgrd"]


@contextlib.contextmanager
def small_disk(folder, size="256k"):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("this user may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_found_before_anything_is_written(tmp_path):
    with small_disk(tmp_path):
        save(tmp_path / "a.mgrd", {"w": np.zeros(10)})
        with pytest.raises(SaveError) as caught:
            save(tmp_path / "a.mgrd", {"w": np.ones(100_000)})
        assert (caught.value.errno, caught.value.phase) == (errno.ENOSPC, "reserve the space")
        assert caught.value.needed > 800_000 > 262_144 > caught.value.free > 0
        assert f"{caught.value.free:,} are free" in str(caught.value)
        assert load(tmp_path / "a.mgrd")["w"].sum() == 0 and os.listdir(tmp_path) == ["a.mgrd"]


def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    with small_disk(tmp_path):
        save(tmp_path / "a.mgrd", {"w": np.zeros(10)})
        with pytest.raises(SaveError) as caught:
            save(tmp_path / "a.mgrd", {"w": np.ones(100_000)})
        assert (caught.value.errno, caught.value.phase) == (errno.ENOSPC, "write")
        assert load(tmp_path / "a.mgrd")["w"].sum() == 0 and os.listdir(tmp_path) == ["a.mgrd"]


def test_a_folder_that_may_not_be_written_is_named():
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # not tmp_path, whose parents other users may not enter
        check_a_read_only_folder(folder)


def check_a_read_only_folder(folder):
    path = os.path.join(folder, "a.mgrd")
    save(path, {"w": np.zeros(10)})
    code = """
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            save(sys.argv[1], {"w": np.ones(10)})
        except SaveError as error:
            print(errno.errorcode[error.errno], error.phase)
    """
    os.chmod(folder, 0o555)
    assert run(code, path) == "EACCES create the temporary"
    os.chmod(folder, 0o755)
    assert load(path)["w"].sum() == 0


def test_a_folder_that_was_removed_is_an_error(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SaveError) as caught:
        save("a.mgrd", {"w": np.ones(2)})
    assert caught.value.phase == "look at the target"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SaveError) as caught:
        save("gone/a.mgrd", {"w": np.ones(2)})
    assert caught.value.phase == "create the temporary"


def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkdir(tmp_path / "folder")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in [tmp_path / "folder", tmp_path / "fifo", tmp_path / "socket", "/dev/null"]:
            with pytest.raises(SaveError) as caught:
                save(path, {})
            assert caught.value.errno == errno.EEXIST
    assert sorted(os.listdir(tmp_path)) == ["fifo", "folder", "socket"]


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    (tmp_path / "other").mkdir()
    os.symlink("other/real.mgrd", tmp_path / "link.mgrd")
    save(tmp_path / "link.mgrd", {"w": np.ones(2)})
    save(tmp_path / "link.mgrd", {"w": np.ones(3)})
    assert (tmp_path / "link.mgrd").is_symlink() and load(tmp_path / "other" / "real.mgrd")[
        "w"
    ].size == 3


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    save(tmp_path / "a.mgrd", {})
    os.chmod(tmp_path / "a.mgrd", 0o600)
    save(tmp_path / "a.mgrd", {"w": np.ones(1)})
    assert os.stat(tmp_path / "a.mgrd").st_mode & 0o777 == 0o600


def meddle(monkeypatch, name, action):
    """Let `action` happen once, in the middle of a load: before its third read of that kind."""
    call, calls = getattr(os, name), []

    def wrapped(*args):
        calls.append(args)
        if len(calls) == 3:
            action()
        return call(*args)

    monkeypatch.setattr(os, name, wrapped)


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mgrd"
    save(path, {"w": np.zeros(400_000), "x": np.zeros(1)})
    meddle(monkeypatch, "preadv", lambda: os.truncate(path, 2_000_000))
    with pytest.raises(FormatError) as caught:
        load(path, verify=False)
    assert caught.value.code == "cut-while-loading"


def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mgrd"
    save(path, {"w": np.zeros(400_000), "x": np.zeros(1)})
    meddle(monkeypatch, "preadv", lambda: os.utime(path, ns=(1, 1)))
    with pytest.raises(FormatError) as caught:
        load(path)
    assert caught.value.code == "changed-while-loading"


def test_a_file_that_is_replaced_while_it_is_read_gives_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.mgrd"
    save(path, {"w": np.zeros(400_000)})
    meddle(monkeypatch, "preadv", lambda: save(path, {"w": np.ones(400_000)}))
    assert load(path)["w"].sum() == 0
    assert load(path)["w"].sum() == 400_000
