"""What a handler gets, and how a route describes itself.

Law: a handler never checks who calls and never parses a parameter that its route does not list;
both happened before it runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from gateway.api.access import Access, Principal, Role
from gateway.api.audit import AuditLog
from gateway.api.sources import Sources

PAGE_MAX: Final = 1_000
PAGE_DEFAULT: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything the handlers share."""

    sources: Sources
    access: Access
    audit: AuditLog
    now_ns: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One admitted request."""

    request: web.Request
    principal: Principal
    context: Context

    async def audit_traces(self, trace_ids: Sequence[str]) -> None:
        """Write down who is about to see these traces.

        Raises: RetryableError when the log cannot be written; nothing may be shown then.
        """
        await asyncio.to_thread(
            self.context.audit.record,
            "trace_read",
            self.principal,
            path=self.request.path_qs,
            traces=trace_ids,
        )


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query parameter as OpenAPI describes it."""

    name: str
    type: str
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path and method.

    `response` is the dataclass of the answer, None when it is not JSON of ours; `types` are the
    content types then. `strict` refuses unknown query parameters.
    """

    method: str
    path: str
    handler: Handler
    role: Role
    summary: str
    query: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    response: type | None = None
    types: tuple[str, ...] = field(default=("application/json",))
    status: int = 200
    strict: bool = True


PAGE: Final = (
    Parameter(name="limit", type="integer", help=f"at most {PAGE_MAX}, default {PAGE_DEFAULT}"),
    Parameter(name="offset", type="integer", help="how many to skip"),
)
