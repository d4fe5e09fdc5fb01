"""`POST /v1/moderations`: the endpoint judges that the request names, else the one that was chosen."""

from collections.abc import Coroutine
from typing import Any

from pilothouse.domain.errors import InvalidRequest, NotSupported, PilothouseError
from pilothouse.domain.principal import Principal
from pilothouse.gateway.admit import may_see
from pilothouse.gateway.pipeline import Pipeline
from pilothouse.gateway.state import GatewayState
from pilothouse.http.answering import send_error
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.wire.openai.moderation import Moderations, model_of


class ModerationRoutes:
    def __init__(self, state: GatewayState, pipeline: Pipeline) -> None:
        self._state = state
        self._pipeline = pipeline

    def create(self, request: Request, responder: Responder) -> Coroutine[Any, Any, None]:
        named = model_of(request.body)
        if named:
            return self._pipeline.serve(request, responder, Moderations(named))
        return self._chosen(request, responder)

    async def _chosen(self, request: Request, responder: Responder) -> None:
        try:
            principal = self._state.authenticator.authenticate(request.headers)
            judge = self._judge_for(principal)
        except PilothouseError as exc:
            send_error(responder, exc)
            return
        await self._pipeline.serve(request, responder, Moderations(judge))

    def _judge_for(self, principal: Principal) -> str:
        judges = sorted(
            {
                endpoint.name
                for endpoint in self._state.endpoints.values()
                if "moderation" in endpoint.tasks and may_see(principal, endpoint)
            }
        )
        if not judges:
            raise NotSupported(
                "no model was chosen to judge; set `moderation: true` on an endpoint whose model shall: "
                "see docs/howto/moderate.md",
                param="model",
            )
        if len(judges) > 1:
            names = ", ".join(judges)
            raise InvalidRequest(f"model: several endpoints judge, name one: {names}", param="model")
        return judges[0]
