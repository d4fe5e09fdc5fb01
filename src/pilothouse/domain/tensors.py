"""
Tensors as models without text take and give them: named, typed, of a shape, and flat.

Belongs here: the types of the Open Inference Protocol and what fits into each. Does
not: how they are written, which is `wire.kserve_v2`.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, prod
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

DataType = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
"""BF16 is not among them: it has no written form but raw bytes, and no number of ours is one."""
Scalar: TypeAlias = bool | int | float | str
Values: TypeAlias = Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[bytes]
MAX_ELEMENTS = 16 * 1024 * 1024
MAX_DIMENSIONS = 32
NO_PARAMETERS: Mapping[str, Scalar] = MappingProxyType({})
_TYPES = frozenset(get_args(DataType))
_LARGEST = {"FP16": 65504.0, "FP32": 3.4028235677973366e38}
"""What still rounds to a finite number of that type, for FP32; for FP16 its largest."""


class TensorFault(ValueError):
    """What is wrong with a tensor: words that name its field."""


class Tensor(Struct, frozen=True):
    """
    One tensor.

    `values` has as many entries as `shape` says, in row-major order: bytes where the
    type is BYTES, bool, int or float of its range elsewhere. `parameters` are hints for
    who reads it, such as `content_type`.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    values: Values
    parameters: Mapping[str, Scalar] = NO_PARAMETERS

    @classmethod
    def of_texts(cls, name: str, texts: Iterable[str], *, shape: tuple[int, ...] | None = None) -> "Tensor":
        values = [text.encode() for text in texts]
        return cls(name, "BYTES", (len(values),) if shape is None else shape, values)

    def texts(self) -> list[str]:
        """
        Raises:
            TensorFault: It holds no UTF-8.
        """
        try:
            return [value.decode() for value in self.values if isinstance(value, bytes)]
        except UnicodeDecodeError as exc:
            raise TensorFault(f"{self.name}: the texts are no UTF-8") from exc


class InferRequest(Struct, frozen=True, kw_only=True):
    """A valid request for tensors out of tensors. `outputs` names those that are wanted, () is all."""

    endpoint: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Scalar] = NO_PARAMETERS
    id: str = ""
    subject: str | None = None


class Inferred(Struct, frozen=True, kw_only=True):
    """What a model made of them."""

    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, Scalar] = NO_PARAMETERS

    def output(self, name: str) -> Tensor | None:
        return next((one for one in self.outputs if one.name == name), None)


def data_type(name: str, where: str) -> DataType:
    """
    Raises:
        TensorFault: No type that is known; `where` says of what.
    """
    if name not in _TYPES:
        raise TensorFault(f"{where}: datatype {name[:32]!r} is none of {', '.join(sorted(_TYPES))}")
    return name  # type: ignore[return-value]  # one of the words just looked up


def count_of(shape: Sequence[int], where: str) -> int:
    """
    How many elements a shape has.

    Raises:
        TensorFault: A dimension below 0, too many of them, or more elements than any request may hold.
    """
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise TensorFault(f"{where}: shape must be at most {MAX_DIMENSIONS} dimensions of 0 and more")
    count = prod(shape)
    if count > MAX_ELEMENTS:
        raise TensorFault(
            f"{where}: {count} elements are more than the {MAX_ELEMENTS} that a tensor may have"
        )
    return count


def integer_bounds(datatype: DataType) -> tuple[int, int]:
    """Least and most of an integer type."""
    bits = int(datatype.removeprefix("U").removeprefix("INT"))
    return (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def fitting(values: Sequence[object], datatype: DataType, where: str) -> Values:
    """
    Values that came as JSON, as those of the type. Texts become their UTF-8.

    Raises:
        TensorFault: One of them is no value of that type.
    """
    if datatype == "BYTES":
        return [_bytes(value, where) for value in values]
    if datatype == "BOOL":
        # Clients that know no truth values send 0 and 1.
        if all(value is True or value is False or value in (0, 1) for value in values):
            return [bool(value) for value in values]
        raise TensorFault(f"{where}: a BOOL tensor holds true and false")
    if datatype.startswith("FP"):
        most = _LARGEST.get(datatype, float("inf"))
        numbers: list[float] = []
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TensorFault(f"{where}: {_shown(value)} is no number")
            number = _float(value)
            if abs(number) > most or not isfinite(number):
                raise TensorFault(f"{where}: {_shown(value)} is more than {datatype} holds")
            numbers.append(number)
        return numbers
    least, greatest = integer_bounds(datatype)
    integers: list[int] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
            raise TensorFault(f"{where}: {_shown(value)} is no integer of {least} to {greatest}")
        integers.append(value)
    return integers


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _bytes(value: object, where: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise TensorFault(f"{where}: {_shown(value)} is no text, as a BYTES tensor holds")


def _shown(value: object) -> str:
    return f"a {type(value).__name__}" if isinstance(value, str | bytes | list | dict) else repr(value)[:40]
