"""
The process of one replica of a SavedModel: `python _tensorflow_child.py CONFIG`.

Speaks TensorFlow Serving's REST API at a private socket: predict, status and
metadata of one model, and two routes that are ours: `/open` counts an answer for
as long as its connection is held, `/load` says how many there are. Its gRPC door is
`_tensorflow_child_grpc`. A SavedModel is a program: what it may do is looked at
before it is loaded.

Only TensorFlow's environment is there: nothing of Pilothouse is imported.
"""

import asyncio
import base64
import json
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

MODEL = "model"
PREFIX = f"/v1/models/{MODEL}"
VERSION = "1"
MAX_BODY = 16 * 1024 * 1024
MAX_ROWS = 64
MAX_WAITING = 256
IDLE_S = 60.0


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Model:
    """A loaded SavedModel: its signatures as functions of rows."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        import tensorflow as tf  # noqa: PLC0415 - there in the engine's environment alone

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self._tf = tf
        self._loaded = tf.saved_model.load(str(folder))
        self.signatures = dict(self._loaded.signatures)

    def predict(self, body: dict[str, Any]) -> list[Any]:
        name = body.get("signature_name", "serving_default")
        if name not in self.signatures:
            raise Refused(400, f'Serving signature name: "{name}" not found in signature def')
        said = self._run(name, self._columns(name, _rows(body, list(self._inputs(name)))))
        lists = {one: _written(one, array.tolist()) for one, array in said.items()}
        if len(lists) == 1:
            return next(iter(lists.values()))
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]

    def run_arrays(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Arrays of NumPy by the names of the signature's tensors, as they are."""
        if name not in self.signatures:
            raise Refused(400, f'Serving signature name: "{name}" not found in signature def')
        specs = self._inputs(name)
        if wrong := sorted(specs.keys() ^ given.keys()):
            raise Refused(400, f"input tensor alias not found in signature, or missing: {wrong[0]}")
        for key, spec in specs.items():
            array = given[key]
            is_text = spec.dtype == self._tf.string and array.dtype == object
            if not (is_text or spec.dtype == array.dtype) or not spec.shape.is_compatible_with(array.shape):
                raise Refused(400, f"the tensor {key} is not of the input's type and shape")
        return self._run(
            name, {key: self._tf.constant(given[key], spec.dtype) for key, spec in specs.items()}
        )

    def specs(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        """What each signature takes and gives."""
        return {
            name: (self._inputs(name), dict(function.structured_outputs))
            for name, function in self.signatures.items()
        }

    def _run(self, name: str, columns: dict[str, Any]) -> dict[str, Any]:
        try:
            said = self.signatures[name](**columns)
        except self._tf.errors.InvalidArgumentError as exc:
            raise Refused(400, exc.message) from exc
        except self._tf.errors.ResourceExhaustedError as exc:
            raise Refused(503, exc.message) from exc
        except self._tf.errors.OpError as exc:
            raise Refused(500, exc.message) from exc
        return {one: tensor.numpy() for one, tensor in said.items()}

    def metadata(self) -> dict[str, Any]:
        found = {
            name: {
                "inputs": {key: _told(spec) for key, spec in inputs.items()},
                "outputs": {key: _told(spec) for key, spec in outputs.items()},
                "method_name": "tensorflow/serving/predict",
            }
            for name, (inputs, outputs) in self.specs().items()
        }
        return {
            "model_spec": {"name": MODEL, "signature_name": "", "version": VERSION},
            "metadata": {"signature_def": {"signature_def": found}},
        }

    def _inputs(self, name: str) -> dict[str, Any]:
        return dict(self.signatures[name].structured_input_signature[1])

    def _columns(self, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        specs = self._inputs(name)
        for row in rows:
            if wrong := sorted(specs.keys() ^ row.keys()):
                raise Refused(400, f"JSON object does not have the signature's keys: see {wrong[0]}")
        try:
            return {
                key: self._tf.constant([_plain(row[key]) for row in rows], dtype=spec.dtype)
                for key, spec in specs.items()
            }
        except (TypeError, ValueError) as exc:
            raise Refused(400, f"JSON value is not of the input's type: {exc}") from exc


def _rows(body: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    rows = body.get("instances")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        raise Refused(400, f"Request body has no list of 1 to {MAX_ROWS} 'instances'")
    if len(names) == 1:
        rows = [row if isinstance(row, dict) and names[0] in row else {names[0]: row} for row in rows]
    if not all(isinstance(row, dict) for row in rows):
        raise Refused(400, "Each of 'instances' must be an object, by the names of the signature's inputs")
    return rows


def _plain(value: Any) -> Any:
    """As TensorFlow Serving carries bytes: `{"b64": ...}`."""
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    return value


def _written(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_written(name, one) for one in value]
    if isinstance(value, bytes):
        return (
            {"b64": base64.b64encode(value).decode()}
            if name.endswith("_bytes")
            else value.decode(errors="replace")
        )
    return value


def _told(spec: Any) -> dict[str, Any]:
    shape: dict[str, Any] = {"unknown_rank": spec.shape.rank is None}
    if spec.shape.rank is not None:
        shape["dim"] = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape]
    return {"dtype": f"DT_{spec.dtype.name.upper()}", "tensor_shape": shape, "name": spec.name}


class Places:
    """How many answers are open, and how many predictions run at once."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._opened = 0
        self.turn = threading.BoundedSemaphore(slots)

    def open(self) -> None:
        with self._lock:
            if self._opened >= self._slots + MAX_WAITING:
                raise Refused(503, "too many answers are open")
            self._opened += 1

    def close(self) -> None:
        with self._lock:
            self._opened -= 1

    def load(self) -> dict[str, int]:
        running = min(self._opened, self._slots)
        return {"running": running, "waiting": self._opened - running}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    server: "Host"

    def do_GET(self) -> None:
        if self.path == "/load":
            self._answer(200, self.server.places.load())
        elif self.path == "/open":
            self._hold()
        elif self.path == PREFIX:
            status = {"error_code": "OK", "error_message": ""}
            self._answer(
                200,
                {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]},
            )
        elif self.path == f"{PREFIX}/metadata":
            self._answer(200, self.server.model.metadata())
        else:
            self._answer(404, {"error": "Malformed request: no such model or route"})

    def do_POST(self) -> None:
        try:
            said = self._predicted()
        except Refused as exc:
            self._answer(exc.status, {"error": str(exc)})
        else:
            self._answer(200, {"predictions": said})

    def _predicted(self) -> list[Any]:
        body = self._body()
        if self.path not in (f"{PREFIX}:predict", f"{PREFIX}/versions/{VERSION}:predict"):
            raise Refused(404, "Malformed request: no such model or route")
        with self.server.places.turn:
            return self.server.model.predict(body)

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("content-length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            raise Refused(413, f"the body must have a length of at most {MAX_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as exc:
            raise Refused(400, f"JSON Parse error: {exc}") from exc
        if not isinstance(body, dict):
            raise Refused(400, "JSON Parse error: no object")
        return body

    def _hold(self) -> None:
        """Until the client hangs up, which is how it says that an answer is over."""
        try:
            self.server.places.open()
        except Refused as exc:
            self._answer(exc.status, {"error": str(exc)})
            return
        try:
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            self.connection.settimeout(None)
            self.connection.recv(1)
        finally:
            self.server.places.close()

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        self.wfile.write(head.encode() + data)

    def log_message(self, *words: object) -> None:
        """Requests are not logged: what they hold is not for a log."""

    def address_string(self) -> str:
        return "socket"


class Host(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, model: Model, places: Places) -> None:
        super().__init__(path, Handler)
        self.model = model
        self.places = places

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none; anything else is for the log."""
        if not isinstance(sys.exception(), ConnectionError | socket.timeout):
            super().handle_error(request, client_address)


def found_in(folder: Path) -> Path:
    """Where the SavedModel is: in the folder itself, or in its one version as TensorFlow Serving has them."""
    places = sorted(path.parent for path in folder.rglob("saved_model.pb"))
    if len(places) != 1:
        raise SystemExit(f"{folder} holds {len(places)} files saved_model.pb; there must be one")
    return places[0]


def beside(name: str) -> ModuleType:
    """A file of this folder, which is on no path: the others in it are Pilothouse's."""
    loader = SourceFileLoader(name, str(Path(__file__).with_name(f"{name}.py")))
    module = ModuleType(name)
    loader.exec_module(module)
    return module


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    slots = config["slots"]
    model = Model(found_in(Path(config["model_path"])), threads=config["threads"])
    if config["protocol"] == "grpc":
        door = beside("_tensorflow_child_grpc")
        services = door.Services(
            beside("_serving_pb2"), sys.modules[__name__], model, Places(slots), slots=slots
        )
        most = 2 * (slots + MAX_WAITING) + 1  # each answer that is open, and its call
        asyncio.run(door.serve(config["socket"], services, max_bytes=MAX_BODY, most_calls=most))
        return
    with Host(config["socket"], model, Places(slots)) as host:
        print(f"pilothouse: ready at {config['socket']}", flush=True)
        host.serve_forever()


if __name__ == "__main__":
    main()
