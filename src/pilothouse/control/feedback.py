"""
Feedback as it comes in: kept at once, whether the answer's record is in the store yet or not.

An id that is signed for the giver's team proves that the answer was his team's;
any other must lead to a record of his team. Texts rest sealed, for their person.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable

from pilothouse.control.seals import Seals
from pilothouse.control.transact import Transact
from pilothouse.domain.answer_id import AnswerIds
from pilothouse.domain.errors import Conflict, NotFound
from pilothouse.domain.feedback import Feedback, FeedbackWish, Rating, read_wish
from pilothouse.domain.principal import Principal
from pilothouse.kit.clock import Clock
from pilothouse.kit.ids import new_id
from pilothouse.ports.store import UnitOfWork


class FeedbackInbox:
    """
    Args:
        subject_key: Secret of the hashes of subjects, from which that of answer ids is made.
        arrived: Called when there is new feedback.
    """

    def __init__(
        self,
        transact: Transact,
        seals: Seals,
        *,
        subject_key: bytes,
        clock: Clock,
        arrived: Callable[[], None],
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By name and value, since this controller started."""
        self._transact = transact
        self._seals = seals
        self._subject_key = subject_key
        self._ids = AnswerIds(subject_key)
        self._clock = clock
        self._arrived = arrived

    def is_answer_of(self, team: str, record_id: str) -> bool:
        """Whether the id is signed for that team: its record is in the store, or on its way."""
        return self._ids.is_signed(record_id, team)

    async def accept(self, wish: FeedbackWish, principal: Principal) -> Feedback:
        """
        Keep it, once.

        Raises:
            InvalidRequest: A field is not what it should be.
            NotFound: It is not an answer of the giver's team.
            Conflict: Its idempotency key was used for feedback about something else.
        """
        rating = read_wish(wish)
        feedback = Feedback(
            id=new_id("fb_"),
            team=principal.team,
            record_id=rating.record_id,
            name=rating.name,
            kind=rating.kind,
            value=rating.value,
            key_id=principal.key_id,
            subject_hash=self._subject_hash(principal.team, wish.subject),
            time=self._clock.now(),
            idempotency_key=wish.idempotency_key,
        )
        kept = await self._transact(lambda unit: self._keep(unit, feedback, rating))
        if (kept.record_id, kept.name) != (feedback.record_id, feedback.name):
            raise Conflict(
                f"idempotency_key: {wish.idempotency_key!r} was sent before, with {kept.name!r} about "
                f"{kept.record_id}; send another one for each feedback, or none",
                param="idempotency_key",
            )
        if kept.id == feedback.id:
            self.counts[kept.name, _value_label(kept)] += 1
            self._arrived()
        return kept

    def _keep(self, unit: UnitOfWork, feedback: Feedback, rating: Rating) -> Feedback:
        if not self.is_answer_of(feedback.team, feedback.record_id):
            missing = f"no answer {feedback.record_id} of this team; send the id as the answer had it"
            try:
                record = unit.records.get(feedback.record_id)
            except NotFound as exc:
                raise NotFound(missing) from exc
            if record.team != feedback.team:
                raise NotFound(missing)
        if rating.text is not None:
            feedback = self._seals.seal_feedback(unit, feedback, rating.text)
        return unit.feedback.add(feedback)

    def _subject_hash(self, team: str, subject: str | None) -> str:
        """As the gateway makes it: who asks to be erased must be found here too."""
        if not subject or not subject.strip():
            return ""
        message = team.encode() + b"\0" + subject.strip().encode()
        return hmac.new(self._subject_key, message, hashlib.sha256).hexdigest()[:32]


def _value_label(feedback: Feedback) -> str:
    """A closed set."""
    if feedback.kind == "bool":
        return "true" if feedback.value else "false"
    return "number" if feedback.kind == "float" else "text"
