"""An archive is unpacked into its folder and nowhere else, or refused with one sentence."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile

import pytest

from fewshot.data.unpack import is_archive, unpack
from fewshot.errors import FewshotError


def tar(path, *members, mode="w:gz"):
    """Members are (name, bytes), or a TarInfo for what is no file."""
    with tarfile.open(path, mode) as bundle:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                bundle.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                bundle.addfile(info, io.BytesIO(member[1]))
    return path


def zipped(path, *members):
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members:
            bundle.writestr(name, content)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tree(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive, tmp_path) -> str:
    before = set(os.listdir(tmp_path))
    with pytest.raises(FewshotError) as caught:
        unpack(archive, tmp_path / "into")
    assert set(os.listdir(tmp_path)) <= before | {"into"}, "something was written beside the folder"
    inside = [path for path in (tmp_path / "into").rglob("*") if path.is_symlink()]
    assert not inside and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_is_unpacked(tmp_path, mode):
    archive = tar(
        tmp_path / "a.tar", ("d/a.jpg", b"a"), special("d/e", tarfile.DIRTYPE), ("./d/e/b.jpg", b"b"), mode=mode
    )
    unpack(archive, tmp_path / "into")
    assert tree(tmp_path / "into") == {"d/a.jpg": b"a", "d/e/b.jpg": b"b"}


def test_a_zip_archive_is_unpacked_without_what_a_mac_adds(tmp_path):
    archive = zipped(
        tmp_path / "a.zip", ("d/a.jpg", b"a"), ("__MACOSX/d/._a.jpg", b"x"), ("d/._a.jpg", b"x"), ("d/e/", b"")
    )
    unpack(archive, tmp_path / "into")
    assert tree(tmp_path / "into") == {"d/a.jpg": b"a"} and (tmp_path / "into" / "d" / "e").is_dir()


OUTSIDE = [
    "../evil.txt",
    "a/../../evil.txt",
    "/tmp/evil.txt",
    "..\\evil.txt",
    "C:\\evil.txt",
    "a/b/../../../evil.txt",
    "..",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_member_outside_of_the_folder_is_refused(tmp_path, name):
    for archive in (tar(tmp_path / "a.tgz", (name, b"x")), zipped(tmp_path / "a.zip", (name, b"x"))):
        assert "tries to write outside of its folder" in refused(archive, tmp_path)
    assert not (tmp_path / "evil.txt").exists() and not os.path.exists("/tmp/evil.txt")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "..\\..\\secret"])
def test_a_link_that_points_outside_is_refused(tmp_path, kind, target):
    (tmp_path / "secret").write_text("secret")
    archive = tar(tmp_path / "a.tar", special("d/link", kind, target))
    assert "tries to write outside of its folder" in refused(archive, tmp_path)


def test_writing_through_a_link_is_not_possible(tmp_path):
    """The classic: a link to a folder, then a file "inside" of it. Links become copies at the end, so there is none."""
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "real").mkdir()
    archive = tar(tmp_path / "a.tar", special("d", tarfile.SYMTYPE, "real"), ("d/a.jpg", b"a"))
    unpack(archive, tmp_path / "into")
    assert not (tmp_path / "into" / "d").is_symlink() and tree(tmp_path / "into") == {"d/a.jpg": b"a"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_that_stays_inside_becomes_a_copy(tmp_path, kind):
    target = "a.jpg" if kind == tarfile.SYMTYPE else "d/a.jpg"
    members = [special("d/c.jpg", tarfile.SYMTYPE, "b.jpg"), special("d/b.jpg", kind, target), ("d/a.jpg", b"a"),
               special("d/dangling", tarfile.SYMTYPE, "nothing"), special("d/self", tarfile.SYMTYPE, "self")]  # fmt: skip
    unpack(tar(tmp_path / "a.tar", *members), tmp_path / "into")
    assert tree(tmp_path / "into") == {"d/a.jpg": b"a", "d/b.jpg": b"a", "d/c.jpg": b"a"}
    assert not any(path.is_symlink() for path in (tmp_path / "into").rglob("*"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path, kind):
    assert "holds a device or a pipe (d/dev)" in refused(tar(tmp_path / "a.tar", special("d/dev", kind)), tmp_path)


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "holds a link (link)" in refused(zipped(tmp_path / "a.zip", (info, "/etc/passwd")), tmp_path)


def test_a_password_is_said(tmp_path):
    archive = zipped(tmp_path / "a.zip", ("a.jpg", b"a"))
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of an encrypted member, in the directory
    archive.write_bytes(content)
    assert "asks for a password" in refused(archive, tmp_path)


def test_permissions_of_strangers_are_not_taken_over(tmp_path):
    info = tarfile.TarInfo("a.sh")
    info.mode = 0o6777
    unpack(tar(tmp_path / "a.tar", info), tmp_path / "into")
    assert not (tmp_path / "into" / "a.sh").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)


@pytest.mark.parametrize("keep", [0.5, 0.95])
@pytest.mark.parametrize("kind", ["tgz", "tar", "xz", "zip"])
def test_a_truncated_archive_is_damaged(tmp_path, kind, keep):
    noise = os.urandom(200_000)
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", ("a.jpg", noise))
    else:
        archive = tar(tmp_path / "a.tar", ("a.jpg", noise), mode={"tgz": "w:gz", "tar": "w", "xz": "w:xz"}[kind])
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    sentence = refused(archive, tmp_path)
    assert "is damaged" in sentence or "is neither a zip nor a tar archive" in sentence


def test_a_changed_byte_in_a_zip_is_damage(tmp_path):
    archive = zipped(tmp_path / "a.zip", ("a.jpg", b"a" * 1000))
    content = bytearray(archive.read_bytes())
    content[100] ^= 1
    archive.write_bytes(content)
    assert "is damaged" in refused(archive, tmp_path)


def test_what_is_no_archive_or_not_there(tmp_path):
    (tmp_path / "a.zip").write_text("<html>")
    assert "is neither a zip nor a tar archive" in refused(tmp_path / "a.zip", tmp_path)
    assert f"there is no file {tmp_path / 'b.zip'}" in refused(tmp_path / "b.zip", tmp_path)
    assert [is_archive(tmp_path / name) for name in ("a.tgz", "B.ZIP", "a.mat", "a.tar.gz")] == [
        True,
        True,
        False,
        True,
    ]


def test_a_full_disk_while_unpacking(tmp_path, monkeypatch):
    archive = tar(tmp_path / "a.tar", ("a.jpg", b"a"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    assert "(No space left on device); free some space" in refused(archive, tmp_path)


def test_a_zip_larger_than_the_disk_is_not_begun(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "a.zip", ("a.jpg", b"a" * 2_000_000))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    assert "unpacks to 0.0 GB, but only 0.0 GB are free" in refused(archive, tmp_path)
    assert not list((tmp_path / "into").iterdir())
