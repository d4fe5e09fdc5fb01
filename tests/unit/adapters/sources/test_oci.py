"""Image layouts: written and read back, and whatever is wrong with one is refused."""

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.adapters.sources.oci import OciSource
from pilothouse.domain.artefact import ARTIFACT_TYPE, CONFIG_TYPE, LAYER_TYPE
from pilothouse.domain.errors import ModelFileRefused, NotFound
from pilothouse.domain.model import Lineage
from pilothouse.kit.oci import Artefact, layout_chunks
from pilothouse.ports.source import Fetched
from pilothouse.testing.conformance_source import Offer, SourceConformance
from pilothouse.testing.gguf_files import make_gguf

CONTENT = make_gguf(data_bytes=5000)
CONFIG = (
    b'{"name":"Assistant","version":"2","licence":"MIT","card":"# A",'
    b'"lineage":{"parent":"base@1","dataset":"d@3"},"later":1}'
)


def export(folder: Path, content: bytes = CONTENT, config: bytes = CONFIG) -> bytes:
    layer = folder / "layer.gguf"
    layer.write_bytes(content)
    return b"".join(
        layout_chunks(
            Artefact(
                artifact_type=ARTIFACT_TYPE,
                config_type=CONFIG_TYPE,
                config=config,
                layer_type=LAYER_TYPE,
                layer=layer,
                digest=f"sha256:{sha256(content).hexdigest()}",
                size=len(content),
                title="a.gguf",
                reference="2",
            )
        )
    )


class OciOffer:
    malformed = ("", "a.tar", "//host/a.tar", "/a\0b")

    def __init__(self, folder: Path) -> None:
        self.source = OciSource()
        self._folder = folder
        self.absent = str(folder / "absent.tar")

    def put(self, content: bytes) -> str:
        path = self._folder / "tiny.tar"
        path.write_bytes(export(self._folder, content))
        return str(path)


class TestOciSource(SourceConformance):
    @pytest.fixture
    def offer(self, tmp_path: Path) -> Offer:
        return OciOffer(tmp_path)


def fetch(path: Path, folder: Path) -> Fetched:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return OciSource().fetch(str(path), work, progress=lambda *_: None, expect=None)


def unpacked(folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(export(folder))) as tar:
        for member in tar:
            path = folder / "layout" / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    return folder / "layout"


def repacked(folder: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The exported tar with other members."""
    with tarfile.open(fileobj=io.BytesIO(export(folder))) as tar:
        members = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    change(members)
    path = folder / "changed.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_what_the_artefact_says_of_itself_comes_along(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(export(tmp_path))

    identity = OciSource().identify(str(path))
    fetched = fetch(path, tmp_path)

    assert (identity.name, identity.version) == ("assistant", "2")
    assert (fetched.licence, fetched.card) == ("MIT", "# A")
    assert fetched.lineage == Lineage(parent="base@1", dataset="d@3")
    assert fetched.path.read_bytes() == CONTENT


def test_a_folder_is_read_as_its_tar_is(tmp_path: Path) -> None:
    assert fetch(unpacked(tmp_path), tmp_path).path.read_bytes() == CONTENT


def test_the_same_version_gives_the_same_bytes(tmp_path: Path) -> None:
    assert export(tmp_path) == export(tmp_path)


def test_it_is_what_the_specification_asks_for(tmp_path: Path) -> None:
    layout = unpacked(tmp_path)
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    raw = (layout / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()
    manifest = json.loads(raw)

    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert (index["schemaVersion"], manifest["schemaVersion"]) == (2, 2)
    assert f"sha256:{sha256(raw).hexdigest()}" == entry["digest"]
    assert entry["size"] == len(raw)
    assert manifest["layers"][0]["annotations"] == {"org.opencontainers.image.title": "a.gguf"}
    assert manifest["artifactType"] == ARTIFACT_TYPE


def _blob_of(members: dict[str, bytes], content: bytes) -> str:
    return next(name for name, one in members.items() if one == content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.pop("oci-layout"), "it holds no oci-layout"),
        (lambda m: m.update({"oci-layout": b'{"imageLayoutVersion":"9"}'}), "no OCI image layout of version"),
        (lambda m: m.update({"index.json": b'{"manifests":[]}'}), "it holds 0 manifests"),
        (lambda m: m.update({"index.json": b"{"}), "cannot be read"),
        (lambda m: m.update({"../evil": b"x"}), "leads out of the archive"),
        (lambda m: m.update({"/etc/evil": b"x"}), "leads out of the archive"),
        (lambda m: m.pop(_blob_of(m, CONFIG)), "it holds no blobs/sha256/"),
        (lambda m: m.update({_blob_of(m, CONFIG): CONFIG.replace(b"MIT", b"GPL")}), "not what its digest"),
        (lambda m: m.update({_blob_of(m, CONTENT): CONTENT[:-1] + b"!"}), "another file"),
        (lambda m: m.update({_blob_of(m, CONTENT): CONTENT + b"!"}), "holds more than"),
        (lambda m: m.update({_blob_of(m, CONTENT): CONTENT[:-9]}), "another file"),
    ],
)
def test_a_layout_that_lies_is_refused(
    tmp_path: Path, change: Callable[[dict[str, bytes]], object], told: str
) -> None:
    with pytest.raises(ModelFileRefused, match=told):
        fetch(repacked(tmp_path, change), tmp_path)

    assert not (tmp_path / "work" / "model.gguf").exists()


def test_a_link_in_a_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("oci-layout")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)

    with pytest.raises(ModelFileRefused, match="no regular file"):
        fetch(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + bytes(600), b"x" * 2000])
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)

    with pytest.raises(ModelFileRefused, match="not a model as an OCI image layout"):
        fetch(path, tmp_path)


def test_an_artefact_of_another_kind_is_refused(tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        manifest: Any = next(json.loads(one) for one in members.values() if b"layers" in one)
        manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
        raw = json.dumps(manifest).encode()
        digest = sha256(raw).hexdigest()
        members[f"blobs/sha256/{digest}"] = raw
        entry = {"mediaType": "x", "digest": f"sha256:{digest}", "size": len(raw)}
        members["index.json"] = json.dumps({"manifests": [entry]}).encode()

    with pytest.raises(ModelFileRefused, match="of another kind"):
        fetch(repacked(tmp_path, change), tmp_path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_layout_gives_the_model_or_a_refusal(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(export(tmp_path))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutated.tar"
    path.write_bytes(content)

    try:
        fetched = fetch(path, tmp_path)
    except (ModelFileRefused, NotFound):
        return
    assert fetched.path.read_bytes() == CONTENT
