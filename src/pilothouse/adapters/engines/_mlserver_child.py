"""
The process of one replica of MLServer: `python _mlserver_child.py SOCKET`, in a folder with its settings.

MLServer listens on ports, for everybody on the machine, and asks nobody who they
are. Here it has its HTTP on a private socket instead, no gRPC and no metrics port,
and of its routes only those that a replica needs: nobody loads or unloads a model.

Only MLServer's environment is there: nothing of Pilothouse is imported.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mlserver import MLServer, ModelSettings, Settings
from mlserver.middleware import InferenceMiddlewares
from mlserver.rest import RESTServer

MODEL = "model"
LOAD = "/load"
KEEP_ALIVE_S = 3600
"""The gateway keeps its connections; one that closed at the wrong moment would cost a request."""
ROUTES = {f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/generate_stream", "/v2/health/live"}


class Closed:
    """The server's ASGI app behind a door."""

    def __init__(self, app: Any, registry: Any) -> None:
        self._app, self._registry = app, registry

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in ROUTES:
            await self._app(scope, receive, send)
            return
        status, said = 501, {"error": "this replica does not do that"}
        if scope["path"] == LOAD:
            model = await self._registry.get_model(MODEL)
            running = model.running
            status, said = 200, {"running": running, "waiting": model.present - running}
        body = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class OnSocket(RESTServer):  # type: ignore[misc]  # of an environment that is not looked at
    """MLServer's HTTP server, on a socket."""

    socket: str
    registry: Any

    def _get_config(self) -> Any:
        app = Closed(self._app, self.registry)
        return uvicorn.Config(
            app, uds=self.socket, access_log=False, log_config=None, timeout_keep_alive=KEEP_ALIVE_S
        )


class Private(MLServer):  # type: ignore[misc]  # of an environment that is not looked at
    """MLServer with that door alone."""

    socket = ""

    def _create_servers(self) -> None:
        # Else every piece of an answer carries half a kilobyte of CloudEvents, which nobody reads here.
        self._data_plane._inference_middleware = InferenceMiddlewares()  # noqa: SLF001 - no setting does it
        self._rest_server = OnSocket(self._settings, self._data_plane, self._model_repository_handlers)
        self._rest_server.socket = self.socket
        self._rest_server.registry = self._model_registry
        self._grpc_server = Nobody()
        self._kafka_server = None


class Nobody:
    """In the place of the gRPC server."""

    async def start(self) -> None:
        return

    async def stop(self, sig: Any = None) -> None:  # noqa: ARG002 - as MLServer calls it
        return


async def main(socket: str) -> None:
    folder = Path.cwd()
    Private.socket = socket
    sys.path.insert(0, str(folder))
    settings = Settings(**json.loads((folder / "settings.json").read_text()))
    model = ModelSettings(**json.loads((folder / "model-settings.json").read_text()))
    await Private(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
