"""Graphs of SavedModels, written by hand: what they may hold, and what is refused by name."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.saved_model import check_graph
from pilothouse.kit.protobuf import ProtobufError, fields

SAVER = ("ShardedFilename", "SaveV2", "MergeV2Checkpoints", "RestoreV2")


def message(*parts: tuple[int, bytes | str]) -> bytes:
    written = b""
    for number, value in parts:
        data = value.encode() if isinstance(value, str) else value
        written += varint(number << 3 | 2) + varint(len(data)) + data
    return written


def varint(number: int) -> bytes:
    written = b""
    while number > 0x7F:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])


def node(op: str, calls: str = "") -> bytes:
    attribute = (5, message((1, "f"), (2, message((10, message((1, calls))))))) if calls else (3, "")
    return message((1, "n"), (2, op), attribute)


def saved_model(
    nodes: Sequence[bytes] = (),
    functions: Mapping[str, Sequence[bytes]] = {},
    named: Sequence[str] = ("serve",),
) -> bytes:
    made = [message((1, message((1, name))), *((3, one) for one in body)) for name, body in functions.items()]
    library = message(*((1, one) for one in made))
    graph = message(*((1, one) for one in nodes), (2, library))
    objects = message(*((2, message((1, name))) for name in named))
    return message((2, message((2, graph), (7, objects))))


def test_a_model_that_computes_and_saves_itself_is_taken() -> None:
    check_graph(
        saved_model(
            nodes=[node("StatefulPartitionedCall", "serve"), node("StatefulPartitionedCall", "save")],
            functions={
                "serve": [node("MatMul"), node("HashTableV2"), node("StatelessWhile", "loop")],
                "loop": [node("Sigmoid"), node("StringJoin"), node("XlaDotV2"), node("Log")],
                "save": [node(op) for op in SAVER],
            },
        )
    )


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("ReadFile", "reads or writes files"),
        ("WriteFile", "reads or writes files"),
        ("WholeFileReaderV2", "reads or writes files"),
        ("TextLineDataset", "reads or writes files"),
        ("Skipgram", "reads or writes files"),
        ("InitializeTableFromTextFileV2", "export the table's words in the graph"),
        ("EagerPyFunc", "runs Python"),
        ("PyFuncStateless", "runs Python"),
        ("PrintV2", "prompts belong in none"),
        ("DebugIdentityV2", "prompts belong in none"),
        ("CreateSummaryFileWriter", "prompts belong in none"),
        ("_Send", "other machines"),
        ("RpcClient", "other machines"),
        ("CollectiveReduceV2", "other machines"),
        ("XlaCallModule", "cannot be looked into"),
        ("Abort", "ends the process"),
        ("_Retval", "own workings"),
    ],
)
@pytest.mark.parametrize("where", ["graph", "function"])
def test_what_reaches_out_is_refused_with_its_name(op: str, why: str, where: str) -> None:
    held = [node("MatMul"), node(op)]
    content = saved_model(nodes=held) if where == "graph" else saved_model(functions={"serve": held})

    with pytest.raises(ModelFileRefused, match=rf"holds {op}, which .*{why}"):
        check_graph(content)


@pytest.mark.parametrize("op", SAVER[1:])
@pytest.mark.parametrize(
    "content",
    [
        lambda held: saved_model(nodes=held),
        lambda held: saved_model(functions={"save": held}, named=["save"]),
        lambda held: saved_model(functions={"save": held, "serve": [node("PartitionedCall", "save")]}),
        lambda held: saved_model(functions={"save": held, "serve": [node("save")]}),
    ],
    ids=["in the graph", "a method", "called", "called as an operation"],
)
def test_weights_are_saved_by_nobody_but_the_saver(op: str, content: object) -> None:
    with pytest.raises(ModelFileRefused, match="outside of where a model's own weights are read"):
        check_graph(content([node(op)]))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x80\x04\x95", saved_model(named=[]), saved_model() + saved_model()],
)
def test_what_is_no_savedmodel_of_tensorflow_2_is_said_so(content: bytes) -> None:
    with pytest.raises(ModelFileRefused, match=r"saved_model\.pb is no SavedModel"):
        check_graph(content)


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_happens(content: bytes) -> None:
    for text in (content, saved_model(functions={"serve": [content]})):
        try:
            check_graph(text)
        except ModelFileRefused:
            pass


@given(st.lists(st.tuples(st.integers(1, 2**20), st.binary(max_size=40)), max_size=8))
def test_fields_come_back_as_they_were_written(parts: list[tuple[int, bytes]]) -> None:
    found = [(number, bytes(value)) for number, value in fields(memoryview(message(*parts)))]

    assert found == parts


@pytest.mark.parametrize("data", [b"\x80", b"\x0a\x05ab", b"\x00\x01", b"\x0b", b"\x09abc", b"\xff" * 11])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ProtobufError):
        list(fields(memoryview(data)))
