import io
import re
import tarfile
from pathlib import Path

import msgspec
import pytest

from pilothouse.kit.archive import MANIFEST, ArchiveBroken, Manifest, extract, writing

NAMES = re.compile(r"[a-z]+\.txt|sub/[a-z]+")


@pytest.fixture
def made(tmp_path) -> Path:
    for name, data in (("a", b"alpha" * 1000), ("b", b"")):
        (tmp_path / name).write_bytes(data)
    with writing(tmp_path / "x.tar") as archive:
        archive.add("one.txt", tmp_path / "a")
        archive.add("sub/two", tmp_path / "a", size_bytes=5)
        archive.add("sub/empty", tmp_path / "b")
        archive.finish({"who": "me"})
    return tmp_path / "x.tar"


def forge(path: Path, *members: tuple[tarfile.TarInfo, bytes], manifest: bytes | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
        if manifest is not None:
            info = tarfile.TarInfo(MANIFEST)
            info.size = len(manifest)
            tar.addfile(info, io.BytesIO(manifest))
    return path


def test_what_went_in_comes_out(made, tmp_path):
    manifest = extract(made, tmp_path / "out", expected=NAMES)

    out = tmp_path / "out"
    assert (out / "one.txt").read_bytes() == b"alpha" * 1000
    assert (out / "sub" / "two").read_bytes() == b"alpha"
    assert (out / "sub" / "empty").read_bytes() == b""
    assert manifest.about == {"who": "me"}
    assert {p.stat().st_mode & 0o077 for p in (made, out / "one.txt", out / "sub")} == {0}


def test_cut_at_any_block_it_is_refused(made, tmp_path):
    data = made.read_bytes()
    end = len(data.rstrip(b"\0"))
    for n, cut in enumerate([*range(0, end, 100), end - 1]):
        made.write_bytes(data[:cut])
        with pytest.raises(ArchiveBroken):
            extract(made, tmp_path / f"out{n}", expected=NAMES)


def test_a_flipped_bit_in_what_matters_is_refused(made, tmp_path):
    data = made.read_bytes()
    for n, at in enumerate(range(0, len(data.rstrip(b"\0")), 101)):
        altered = bytearray(data)
        altered[at] ^= 4
        made.write_bytes(altered)
        out = tmp_path / f"out{n}"
        try:
            extract(made, out, expected=NAMES)
        except ArchiveBroken:
            continue
        # Padding, or a manifest that still reads as JSON with other words in `about`.
        assert (out / "one.txt").read_bytes() == b"alpha" * 1000
        assert (out / "sub" / "two").read_bytes() == b"alpha"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up.txt", "sub/../../up", "other.bin", "one.txt/", "./one.txt", "sub/UP", ""]
)
def test_a_name_that_is_not_expected_is_refused_and_written_nowhere(tmp_path, name):
    path = forge(tmp_path / "x.tar", (tarfile.TarInfo(name), b"bad"), manifest=b"{}")

    with pytest.raises(ArchiveBroken):
        extract(path, tmp_path / "in" / "out", expected=NAMES)
    assert not (tmp_path / "in" / "up").exists()
    assert not (tmp_path / "in" / "up.txt").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S"]
)
def test_links_devices_and_sparse_files_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("one.txt")
    info.type, info.linkname = kind, "/etc/passwd"
    path = forge(tmp_path / "x.tar", (info, b""), manifest=b"{}")

    with pytest.raises(ArchiveBroken):
        extract(path, tmp_path / "out", expected=NAMES)


def test_a_member_twice_is_refused(tmp_path):
    path = forge(
        tmp_path / "x.tar", (tarfile.TarInfo("a.txt"), b"1"), (tarfile.TarInfo("a.txt"), b"2"), manifest=b"{}"
    )

    with pytest.raises(ArchiveBroken, match="twice"):
        extract(path, tmp_path / "out", expected=NAMES)


@pytest.mark.parametrize("manifest", [b"", b"{}", b"null", b'{"members":{},"about":{},"more":1}'])
def test_a_manifest_that_is_none_is_refused(tmp_path, manifest):
    path = forge(tmp_path / "x.tar", manifest=manifest)

    with pytest.raises(ArchiveBroken):
        extract(path, tmp_path / "out", expected=NAMES)


def test_a_member_that_the_manifest_does_not_name_is_refused(tmp_path):
    empty = msgspec.json.encode(Manifest({}, {}))
    path = forge(tmp_path / "x.tar", (tarfile.TarInfo("a.txt"), b"1"), manifest=empty)

    with pytest.raises(ArchiveBroken, match="digest"):
        extract(path, tmp_path / "out", expected=NAMES)


def test_an_archive_that_fails_half_way_does_not_appear(tmp_path):
    def fail():
        with writing(tmp_path / "x.tar") as archive:
            archive.add("one.txt", tmp_path / "none")

    with pytest.raises(FileNotFoundError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_archive_never_replaces_a_file(tmp_path):
    (tmp_path / "x.tar").write_text("precious")

    def write():
        with writing(tmp_path / "x.tar") as archive:
            archive.finish({})

    with pytest.raises(FileExistsError):
        write()
    assert (tmp_path / "x.tar").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1
