"""Handlers of dead letters: list, replay, drop.

Law: a change names its letters by id or says `all=true`, never neither, and is written to the audit
log before it happens. Dead letters show numbers and reasons, no content.
"""

import asyncio
import re
from typing import Final

from aiohttp import web

from gateway.api import params
from gateway.api.access import Role
from gateway.api.call import PAGE, PAGE_DEFAULT, PAGE_MAX, Call, Parameter, Route
from gateway.api.outbox import DeadLetterPage, LettersDone, LetterSelection
from gateway.api.state import OFFSET_MAX
from gateway.api.views import respond
from gateway.batch import Signal
from gateway.errors import InvalidQueryError

PATH: Final = "/api/v1/dead-letters"
SIGNALS: Final = tuple(str(each) for each in Signal)
IDS_MAX: Final = 100
ID_MAX: Final = (1 << 63) - 1

_IDS: Final = re.compile(r"[0-9]{1,18}(,[0-9]{1,18})*")

_FILTERS: Final = (
    Parameter(name="destination", type="string", help="name of a destination"),
    Parameter(name="signal", type="string", help=", ".join(SIGNALS)),
    Parameter(name="reason", type="string", help="a part of the cause or the reason, in any case"),
    Parameter(name="through", type="integer", help="only letters up to this id"),
)
_CHOICE: Final = (
    Parameter(name="ids", type="string", help=f"ids with commas between, at most {IDS_MAX}"),
    Parameter(name="all", type="boolean", help="true: all letters that fit the other parameters"),
)


def _filters(call: Call, ids: tuple[int, ...] | None = None) -> LetterSelection:
    return LetterSelection(
        ids=ids,
        destination=params.maybe_text(call.request, "destination"),
        signal=params.maybe_choice(call.request, "signal", SIGNALS),
        reason=params.maybe_text(call.request, "reason"),
        through=params.maybe_integer(call.request, "through", 0, ID_MAX),
    )


def _chosen(call: Call) -> LetterSelection:
    """Read what a change is about. Raises: InvalidQueryError unless it is said in one way."""
    text = params.maybe_text(call.request, "ids")
    is_all = params.maybe_choice(call.request, "all", ("true", "false")) == "true"
    if (text is None) == (not is_all):
        raise InvalidQueryError("send ids, such as ids=4,5, or all=true with any filters")
    if text is None:
        return _filters(call)
    ids = text.split(",")
    if not _IDS.fullmatch(text) or len(ids) > IDS_MAX:
        raise InvalidQueryError(f"ids are at most {IDS_MAX} numbers with commas between")
    return _filters(call, tuple(int(each) for each in ids))


async def _audit(call: Call, event: str) -> None:
    """Write down who changes what. Raises: RetryableError; nothing is changed then."""
    await asyncio.to_thread(
        call.context.audit.record, event, call.principal, path=call.request.path_qs
    )


async def list_dead_letters(call: Call) -> web.Response:
    """List dead letters, the newest first."""
    limit = params.maybe_integer(call.request, "limit", 1, PAGE_MAX) or PAGE_DEFAULT
    offset = params.maybe_integer(call.request, "offset", 0, OFFSET_MAX) or 0
    return respond(await call.context.sources.dead_letters.list(_filters(call), limit, offset))


async def replay_dead_letters(call: Call) -> web.Response:
    """Make dead letters pending again."""
    chosen = _chosen(call)
    await _audit(call, "dead_letters_replay")
    return respond(await call.context.sources.dead_letters.replay(chosen))


async def drop_dead_letters(call: Call) -> web.Response:
    """Delete dead letters for good."""
    chosen = _chosen(call)
    await _audit(call, "dead_letters_drop")
    return respond(await call.context.sources.dead_letters.drop(chosen))


LETTER_ROUTES: Final = (
    Route(
        method="GET",
        path=PATH,
        handler=list_dead_letters,
        role=Role.VIEWER,
        summary="What destinations will not get and why, the newest first.",
        query=(*PAGE, *_FILTERS),
        response=DeadLetterPage,
    ),
    Route(
        method="POST",
        path=f"{PATH}/replay",
        handler=replay_dead_letters,
        role=Role.OPERATOR,
        summary="Send dead letters again, the oldest first; ask again while some are left.",
        query=(*_CHOICE, *_FILTERS),
        response=LettersDone,
    ),
    Route(
        method="DELETE",
        path=PATH,
        handler=drop_dead_letters,
        role=Role.OPERATOR,
        summary="Delete dead letters for good, the oldest first; ask again while some are left.",
        query=(*_CHOICE, *_FILTERS),
        response=LettersDone,
    ),
)
