"""Parts of drivers that stand on an extra, imported where a deployment asks for them and not before."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pilothouse.domain.errors import OperationFailed


def over_grpc(module: str) -> Any:
    """
    A module of this folder that stands on the extra `grpc`, such as `_inference_grpc`.

    Raises:
        OperationFailed: The extra is not installed.
    """
    if find_spec("grpc") is None or find_spec("google.protobuf") is None:
        raise OperationFailed(
            "engine_options.protocol: grpc needs an extra that is not installed. "
            "fix: pip install 'pilothouse[grpc]', or use another protocol"
        )
    return import_module(f"{__package__}.{module}")
