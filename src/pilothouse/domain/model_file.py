"""
Which files may hold a model, and what the others are.

Belongs here: the formats that are taken, by their first bytes, and the names
that are taken out of an archive. The one idea: an allow-list. A file is GGUF or
safetensors, or it is refused with the name of what it is; nothing that can
carry code (pickle, archives of it) is ever scanned and then trusted.
"""

from pilothouse.domain.errors import ModelFileRefused

HEAD_BYTES = 512
"""So many first bytes are enough to tell what a file is."""

MAX_MODEL_BYTES = 256 * 1024**3
"""Far above the largest single model files; a bound so that no source can fill a disk without end."""

CONVERTIBLE_FILES = frozenset(
    {
        "model.safetensors",
        "config.json",
        "vocab.txt",
        "tokenizer_config.json",
        "sentence_bert_config.json",
        "modules.json",
        "1_Pooling/config.json",
    }
)
"""What a sentence-transformers model is converted from; relative to the folder of its weights."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x80\x02", "a Python pickle, which runs code when it is loaded"),
    (b"\x80\x03", "a Python pickle, which runs code when it is loaded"),
    (b"\x80\x04", "a Python pickle, which runs code when it is loaded"),
    (b"\x80\x05", "a Python pickle, which runs code when it is loaded"),
    (b"PK\x03\x04", "a zip archive: a PyTorch file holds a pickle, which runs code when it is loaded"),
    (b"\x89HDF\r\n", "a Keras or HDF5 file, which can run code when it is loaded"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"(\xb5/\xfd", "a zstandard archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"ggml", "a file of the GGML format, which came before GGUF"),
    (b"ggjt", "a file of the GGML format, which came before GGUF"),
    (b"ggla", "a GGML adapter"),
    (b"FUGG", "a big-endian GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
)


def why_not_gguf(head: bytes) -> str | None:
    """
    Say what a file is that does not begin as GGUF does.

    Args:
        head: The first `HEAD_BYTES` of the file, or all of a shorter one.

    Returns:
        None for GGUF; otherwise words that complete "the file is ...".
    """
    if head.startswith(b"GGUF"):
        return None
    if not head:
        return "empty"
    if what := what_else(head):
        return what
    if head[257:262] == b"ustar":
        return "a tar archive"
    if _is_safetensors(head):
        return "safetensors, which is taken as a folder with its configuration: file:/path/to/folder"
    if head.lstrip()[:1] == b"<":
        return "a web page or XML, not a model: the address wants a browser or a login"
    return "not GGUF: it does not begin with the bytes GGUF"


def what_else(head: bytes) -> str | None:
    """What a file is that begins like something known that is no model; words as above."""
    return next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)


def another_file(what: str, *, found: str, expected: str) -> ModelFileRefused:
    """The error for a file that is not the one that was meant."""
    return ModelFileRefused(
        f"{what} has the digest {found}, but {expected} is recorded or promised for it: it is another file. "
        f"Find out why. If the change is meant, remove the model and pull it again"
    )


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000
