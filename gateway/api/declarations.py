"""Handlers of rollouts, labels, promotions and dismissals: what people and pipelines declare.

Law: a declaration becomes a log record in the same journal as what devices send, and is answered
when it is durable; nothing here changes a state. What cannot be right is refused before: an unknown
model, a rollout that is there already, or none that could be ended, a device that never was. Who
declares what is written to the audit log first.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.api.access import Role
from gateway.api.body import reasons
from gateway.api.call import PAGE, Call, Route
from gateway.api.declared import (
    BaselinePromoted,
    DevicesDismissed,
    LabelsDeclared,
    RolloutDeclared,
    RolloutPage,
    RolloutStatus,
)
from gateway.api.drifts import BaselineState
from gateway.api.forms import (
    LABELS_MAX,
    OUTCOMES_MAX,
    DismissalBody,
    LabelBody,
    LabelList,
    LabelsBody,
    OutcomesBody,
    RolloutBody,
    RolloutEndBody,
)
from gateway.api.state import page
from gateway.api.views import respond
from gateway.batch import Json
from gateway.errors import (
    ConflictError,
    InvalidQueryError,
    NotFoundError,
    PayloadTooLargeError,
    UnsupportedMediaError,
)
from gateway.otlp import events
from gateway.otlp.events import (
    DeviceOutcome,
    Dismissal,
    Event,
    Label,
    Promotion,
    RolloutEnd,
    RolloutStart,
)

ROLLOUTS: Final = "/api/v1/rollouts"
LABELS: Final = "/api/v1/labels"
BASELINES: Final = "/api/v1/baselines"
DISMISSAL: Final = "/api/v1/devices/dismiss"
CANDIDATE: Final = "candidate"
UNKNOWN_SHOWN_MAX: Final = 8
# A label of ordinary length is 100 bytes of JSON.
LISTS_BYTES_MAX: Final = 4 << 20
PLANNED: Final = "planned"
ENDED: Final = "ended"
# The core is some milliseconds behind the journal; a declaration is durable whether or not it has
# been measured after this.
SETTLE_S: Final = 0.02
SETTLE_TRIES: Final = 50

_Body = TypeVar("_Body", bound=BaseModel)


async def _read(call: Call, kind: type[_Body], *, optional: bool = False) -> _Body:
    """Read a body. Raises: InvalidQueryError with what to write, UnsupportedMediaError."""
    return _parsed(await _raw(call, optional=optional) or b"{}", kind)


async def _raw(call: Call, *, optional: bool = False) -> bytes:
    request = call.request
    if request.content_type != "application/json" and not (optional and not request.can_read_body):
        raise UnsupportedMediaError("send the body as application/json")
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > LISTS_BYTES_MAX:
            raise PayloadTooLargeError(f"a body has at most {LISTS_BYTES_MAX} bytes; send several")
        parts.append(part)
    return b"".join(parts)


def _parsed(raw: bytes, kind: type[_Body]) -> _Body:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidQueryError(reasons(error)) from error


async def _declare(call: Call, event: str, made: Sequence[Event], **noted: Json) -> None:
    """Write down who declares what, then declare it. Raises: RetryableError, RequestError."""
    principal = call.principal
    fields = {"principal": principal.name, "role": principal.role.name.lower(), **noted}
    await asyncio.to_thread(call.context.audit.note, event, fields)
    await call.context.sources.declarations.declare(await asyncio.to_thread(events.write, made))


async def _state(call: Call, name: str, wanted: str) -> str:
    """Wait a moment until what was declared has been measured, so that the next call finds it."""
    for _ in range(SETTLE_TRIES):
        found = _known(call).get(name)
        if found is not None and (wanted != ENDED or found.state == ENDED):
            return found.state
        await asyncio.sleep(SETTLE_S)
    return wanted


def _known(call: Call) -> dict[str, RolloutStatus]:
    return {each.id: each for each in call.context.sources.declarations.rollouts().rollouts}


def _found(call: Call) -> RolloutStatus:
    """Find the rollout of the path. Raises: NotFoundError."""
    found = _known(call).get(call.request.match_info["id"])
    if found is None:
        raise NotFoundError("there is no rollout with this id; list them at /api/v1/rollouts")
    return found


def _check_model(call: Call, model: str | None) -> None:
    models = call.context.sources.declarations.models()
    if model is not None and model not in models:
        known = ", ".join(sorted(models)) or "none"
        raise InvalidQueryError(f"model: no contract has this model; write one of: {known}")


async def list_rollouts(call: Call) -> web.Response:
    """List rollouts, the newest first."""
    found = call.context.sources.declarations.rollouts()
    return respond(
        RolloutPage(
            items=page(call, found.rollouts),
            total=len(found.rollouts),
            models=found.models,
            refused=found.refused,
        )
    )


async def start_rollout(call: Call) -> web.Response:
    """Declare that a version begins to replace another."""
    body = await _read(call, RolloutBody)
    _check_model(call, body.model)
    if body.previous == body.version:
        raise InvalidQueryError("previous: write the version that is replaced, not the new one")
    name = body.id or f"r-{secrets.token_hex(6)}"
    if name in _known(call):
        raise ConflictError("a rollout has this id already; leave it out, and a new one is made")
    made = RolloutStart(
        at_ns=call.context.now_ns(),
        rollout=name,
        model=body.model,
        version=body.version,
        previous=body.previous or "",
        allocation=body.allocation,
        deadline_s=body.deadline_s,
        devices=body.devices,
        kind=body.kind,
    )
    noted = {"rollout": name, "model": body.model, "version": body.version}
    await _declare(call, "rollout_start", [made], **noted)
    return respond(
        RolloutDeclared(id=name, state=await _state(call, name, PLANNED)),
        status=202,
        headers={"Location": f"{ROLLOUTS}/{name}"},
    )


async def end_rollout(call: Call) -> web.Response:
    """Declare that a rollout is over."""
    body = await _read(call, RolloutEndBody, optional=True)
    found = _found(call)
    if found.state == ENDED:
        raise ConflictError("this rollout has ended already")
    at_ns = max(call.context.now_ns(), found.start_ns)
    made = RolloutEnd(at_ns=at_ns, rollout=found.id, outcome=body.outcome)
    await _declare(call, "rollout_end", [made], rollout=found.id, outcome=str(body.outcome))
    return respond(
        RolloutDeclared(id=found.id, state=await _state(call, found.id, ENDED)), status=202
    )


async def report_devices(call: Call) -> web.Response:
    """Declare which devices have the new version, and which have failed to get it."""
    body = await _read(call, OutcomesBody)
    found = _found(call)
    at_ns = call.context.now_ns()
    made = [
        DeviceOutcome(at_ns=at_ns, device=each.device, rollout=found.id, succeeded=each.succeeded)
        for each in body.devices
    ]
    await _declare(call, "rollout_devices", made, rollout=found.id, devices=len(made))
    return respond(RolloutDeclared(id=found.id, state=found.state), status=202)


async def label_traces(call: Call) -> web.Response:
    """Declare the truth about traces."""
    raw = await _raw(call)
    is_list = raw.lstrip()[:1] == b"["
    labels = _parsed(raw, LabelList).root if is_list else [_parsed(raw, LabelBody)]
    for model in {each.model for each in labels}:
        _check_model(call, model)
    at_ns = call.context.now_ns()
    made = [
        Label(
            at_ns=at_ns,
            trace_id=bytes.fromhex(each.trace_id),
            value=each.value,
            model=each.model or "",
        )
        for each in labels
    ]
    await _declare(call, "labels", made, labels=len(made))
    return respond(LabelsDeclared(labels=len(made)), status=202)


async def promote_baseline(call: Call) -> web.Response:
    """Make a candidate, or a baseline in the shadow, the one of its signal."""
    name = call.request.match_info["id"]
    found = await _baseline(call, name)
    if found is None:
        raise NotFoundError(f"there is no baseline with this id; list them at {BASELINES}")
    if found.state != CANDIDATE and found.superseded is None:
        advice = (
            "build another file with `weir baseline build`"
            if found.source == "file"
            else f"promote the id of a candidate, if {BASELINES} lists one"
        )
        raise ConflictError(f"this baseline is {found.state}, no candidate; {advice}")
    made = Promotion(at_ns=call.context.now_ns(), baseline=name)
    noted = {"model": found.model, "version": found.version, "signal": found.signal}
    await _declare(call, "baseline_promotion", [made], baseline=name, **noted)
    state = found.state
    for _ in range(SETTLE_TRIES):
        now = await _baseline(call, name)
        state = found.state if now is None else now.state
        if state != found.state:
            break
        await asyncio.sleep(SETTLE_S)
    return respond(BaselinePromoted(id=name, state=state), status=202)


async def _baseline(call: Call, name: str) -> BaselineState | None:
    found = (await call.context.sources.measure()).baselines
    return next((each for each in found if name and each.id == name), None)


async def dismiss_devices(call: Call) -> web.Response:
    """Declare that nobody waits for devices any more."""
    body = await _read(call, DismissalBody)
    unknown = call.context.sources.declarations.unknown(body.devices)
    if unknown:
        shown = ", ".join(unknown[:UNKNOWN_SHOWN_MAX])
        more = f" and {len(unknown) - UNKNOWN_SHOWN_MAX} more" * (len(unknown) > UNKNOWN_SHOWN_MAX)
        raise NotFoundError(f"no device was ever heard under this name: {shown}{more}")
    at_ns = call.context.now_ns()
    made = [Dismissal(at_ns=at_ns, device=each) for each in body.devices]
    await _declare(call, "devices_dismissed", made, devices=list(body.devices))
    return respond(DevicesDismissed(devices=len(made)), status=202)


DECLARATION_ROUTES: Final = (
    Route(
        method="GET",
        path=ROLLOUTS,
        handler=list_rollouts,
        role=Role.VIEWER,
        summary="Rollouts: state, devices, what each has spent of the error budget.",
        query=PAGE,
        response=RolloutPage,
    ),
    Route(
        method="POST",
        path=ROLLOUTS,
        handler=start_rollout,
        role=Role.OPERATOR,
        summary="Declare that a version begins to replace another; answered when durable.",
        body=RolloutBody,
        response=RolloutDeclared,
        status=202,
    ),
    Route(
        method="POST",
        path=f"{ROLLOUTS}/{{id}}/end",
        handler=end_rollout,
        role=Role.OPERATOR,
        summary="Declare that a rollout is over.",
        body=RolloutEndBody,
        response=RolloutDeclared,
        status=202,
    ),
    Route(
        method="POST",
        path=f"{ROLLOUTS}/{{id}}/devices",
        handler=report_devices,
        role=Role.OPERATOR,
        summary=f"Declare what became of devices of a rollout, at most {OUTCOMES_MAX} at once.",
        body=OutcomesBody,
        response=RolloutDeclared,
        status=202,
    ),
    Route(
        method="POST",
        path=f"{BASELINES}/{{id}}/promote",
        handler=promote_baseline,
        role=Role.OPERATOR,
        summary="Promote a candidate or a baseline in the shadow; answered when durable.",
        response=BaselinePromoted,
        status=202,
    ),
    Route(
        method="POST",
        path=DISMISSAL,
        handler=dismiss_devices,
        role=Role.OPERATOR,
        summary="Declare that devices were taken out of service: their silence is no trouble.",
        body=DismissalBody,
        response=DevicesDismissed,
        status=202,
    ),
    Route(
        method="POST",
        path=LABELS,
        handler=label_traces,
        role=Role.OPERATOR,
        summary=f"Declare the truth about traces: one label, or a list of at most {LABELS_MAX}.",
        body=LabelsBody,
        response=LabelsDeclared,
        status=202,
    ),
)
