"""
What a replica of TorchServe finds when it starts: its configuration, and the model's archive.

The one idea: an archive may be a folder, and ours holds our code and the weights'
path alone, so that nothing of a model's own is ever run, unpacked or copied.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pilothouse.adapters.engines import _torchserve_handler
from pilothouse.adapters.engines._own_code import generator_files
from pilothouse.adapters.engines._torchserve_http import INFERENCE, MANAGEMENT, MODEL

RESPONSE_TIMEOUT_S = 600
"""Without a token; then TorchServe kills its worker. Requests have deadlines of their own."""
START_TIMEOUT_S = 300
MAX_BODY_BYTES = 64 * 1024 * 1024
_STORE = f"store/{MODEL}"
LOGGING = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error"><Appenders><Console name="out" target="SYSTEM_OUT">
<PatternLayout pattern="%d{ISO8601} %p %c{1} - %m%n"/></Console></Appenders><Loggers>
<Logger name="org.pytorch.serve" level="warn"/><Logger name="MODEL_LOG" level="info"/>
<Logger name="ACCESS_LOG" level="off"/><Logger name="TS_METRICS" level="off"/>
<Logger name="MODEL_METRICS" level="off"/><Logger name="io.netty" level="error"/>
<Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""
"""All to the one bounded log, where the default has five of 100 MB and lines for each request."""


def files(options: Mapping[str, Any], *, version: str, queue_size: int) -> dict[str, str]:
    """All, by their paths in the replica's folder. `options` are our handler's."""
    return {"log4j2.xml": LOGGING, **_archive(options, version=version, queue_size=queue_size)}


def properties() -> str:
    """TorchServe's configuration: sockets for its HTTP, and nothing that a request could change."""
    return f"""\
inference_address=unix:{{folder}}/{INFERENCE}
management_address=unix:{{folder}}/{MANAGEMENT}
metrics_address=unix:{{folder}}/metrics.sock
grpc_inference_address=127.0.0.1
grpc_management_address=127.0.0.1
grpc_inference_port={{port.grpc_inference}}
grpc_management_port={{port.grpc_management}}
load_models={MODEL}
default_workers_per_model=1
number_of_netty_threads=2
netty_client_threads=1
max_request_size={MAX_BODY_BYTES}
max_response_size={MAX_BODY_BYTES}
disable_system_metrics=true
enable_envvars_config=false
enable_model_api=false
disable_token_authorization=false
install_py_dep_per_model=false
allowed_urls=file:///nowhere
"""


def _archive(options: Mapping[str, Any], *, version: str, queue_size: int) -> dict[str, str]:
    """The model as TorchServe wants it, unpacked."""
    manifest = {
        "createdOn": "",
        "runtime": "python",
        "archiverVersion": version,
        "model": {
            "modelName": MODEL,
            "modelVersion": "1.0",
            "handler": "pilothouse_handler.py",
            "configFile": "model-config.yaml",
        },
    }
    config = {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "responseTimeout": RESPONSE_TIMEOUT_S,
        "startupTimeout": START_TIMEOUT_S,
        **({"jobQueueSize": queue_size} if queue_size else {}),
        "pilothouse": dict(options),
    }
    handler = Path(_torchserve_handler.__file__).read_text(encoding="utf-8")
    inside = {
        "MAR-INF/MANIFEST.json": msgspec.json.encode(manifest).decode(),
        "model-config.yaml": msgspec.json.encode(config).decode(),  # JSON is YAML
        "pilothouse_handler.py": handler,
        **generator_files(),
    }
    return {f"{_STORE}/{path}": text for path, text in inside.items()}
