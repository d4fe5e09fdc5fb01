"""
What a TensorFlow SavedModel may do: its graph is a program, judged by its operations.

Belongs here: which are refused, and why. Does not: running any. The one idea: a model
that answers computes on what it was given and on its own weights. What reaches for a
file, the network, Python or the log is refused with its name and place; so is what
cannot be looked into.

Source: the operations that TensorFlow 2.21 registers, and `saved_model.proto`,
`meta_graph.proto`, `graph.proto`, `function.proto`, `saved_object_graph.proto`.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.kit.protobuf import ProtobufError, inner, text

_REFUSED = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (
            r"(Read|Write|Matching)Files?|RecordInput|ImmutableConst|LoadAndRemapMatrix|GenerateVocabRemapping"
            r"|Skipgram|FixedUnigramCandidateSampler|(De|En)codeProto(V2)?|(\w+)?Reader\w*|\w*Dataset\w*"
            r"|\w*Iterator\w*|FileSystemSetConfiguration|DumpTensor|CalibrationStatisticsSaver|ImportEvent",
            "reads or writes files",
        ),
        (
            r"InitializeTableFromTextFile(V2)?",
            "reads a file: export the table's words in the graph (tf.lookup.KeyValueTensorInitializer)",
        ),
        (r"\w*PyFunc\w*", "runs Python, which is not in the model"),
        (
            r"Print(V2)?|Debug\w+|\w*Summary\w*",
            "writes what it is given to logs or files, and prompts belong in none",
        ),
        (
            r"_?\w*(Send|Recv)(V2|TPU\w+|FromHost\w*|AtHost\w*|ToHost)?|Rpc\w+|RemoteCall|Collective\w+|_?Nccl\w+"
            r"|DistributedSave|WorkerHeartbeat|\w*T[Pp][Uu]\w*|DTensor\w*",
            "speaks to other machines or devices",
        ),
        (
            r"XlaCallModule|XlaCustomCall(V2)?|_?Xla(Launch|Compile|Run|Host)\w*|MlirPassthroughOp",
            "is compiled code that cannot be looked into: export the model without it",
        ),
        (r"Abort", "ends the process"),
        (r"_\w*", "belongs to TensorFlow's own workings and to no model"),
    )
)
_SAVER = re.compile(r"(DTensor)?(Save|Restore)(V2|Slices?)?|MergeV2Checkpoints")
"""Every SavedModel has these to read and write its own weights, in functions that nothing else calls."""
_NODES, _LIBRARY = 1, 2
_FUNC, _LIST, _LIST_FUNC = 10, 1, 9


class _Function(Struct):
    name: str
    ops: set[str]
    calls: set[str]
    """Functions that it names."""


def check_graph(content: bytes) -> None:
    """
    Look at the whole of a `saved_model.pb`.

    Raises:
        ModelFileRefused: It is none, or does what a model need not do.
    """
    try:
        graphs = list(inner(memoryview(content), 2))
        found = [(list(_functions(graph)), _named(graph)) for graph in graphs]
    except ProtobufError as exc:
        raise ModelFileRefused(f"saved_model.pb is no SavedModel: {exc}") from exc
    if len(graphs) != 1 or not found[0][1]:
        raise ModelFileRefused(
            "saved_model.pb is no SavedModel of TensorFlow 2, with one graph and objects: export it again by "
            "tf.saved_model.save, with its signatures"
        )
    for functions, named in found:
        called = named.union(*(one.calls for one in functions if one.name))
        for one in functions:
            is_saver = bool(one.name) and one.name not in called
            for op in sorted(one.ops):
                if why := _why_not(op, is_saver=is_saver):
                    where = f"the function {one.name[:100]}" if one.name else "the graph"
                    raise ModelFileRefused(f"saved_model.pb: {where} holds {op[:100]}, which {why}")


def _why_not(op: str, *, is_saver: bool) -> str:
    if _SAVER.fullmatch(op):
        return "" if is_saver else "reads or writes files, outside of where a model's own weights are read"
    return next((why for pattern, why in _REFUSED if pattern.fullmatch(op)), "")


def _functions(meta_graph: memoryview) -> Iterator[_Function]:
    """All of a graph's, and the graph itself, whose name is empty."""
    for graph in inner(meta_graph, 2):
        yield _function("", inner(graph, _NODES))
        for library in inner(graph, _LIBRARY):
            for function in inner(library, 1):
                name = next((text(one, 1) for one in inner(function, 1)), "")
                yield _function(name or "?", inner(function, 3))


def _function(name: str, nodes: Iterator[memoryview]) -> _Function:
    found = _Function(name, set(), set())
    for node in nodes:
        op = text(node, 2)
        found.ops.add(op)
        found.calls.add(op)  # a function may be called as if it were an operation
        for attribute in inner(node, 5):
            for value in inner(attribute, 2):
                found.calls.update(text(one, 1) for one in inner(value, _FUNC))
                for several in inner(value, _LIST):
                    found.calls.update(text(one, 1) for one in inner(several, _LIST_FUNC))
    return found


def _named(meta_graph: memoryview) -> set[str]:
    """Functions that are a method or signature of the model."""
    return {
        text(entry, 1) for objects in inner(meta_graph, 7) for entry in inner(objects, 2) if text(entry, 1)
    }
