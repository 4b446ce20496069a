"""The aiohttp application: routes of the table behind access control and error answers.

Law: a request reaches its handler only when its caller has the route's role, its parameters are
bounded, and, if it changes something, it was not sent by a page of another site.
"""

import ipaddress
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from gateway.api import console, openapi
from gateway.api.access import Access, Principal, Role, Token
from gateway.api.audit import AuditLog
from gateway.api.body import BODY_BYTES_MAX
from gateway.api.call import Call, Context, Route
from gateway.api.params import check_known
from gateway.api.problem import Handler, add_headers, answer_errors
from gateway.api.routes import ROUTES
from gateway.api.sources import Sources
from gateway.errors import ForbiddenError

_READING: Final = frozenset({"GET", "HEAD"})


def _refuse_other_sites(request: web.Request) -> None:
    """Refuse what a page of another site makes a browser send.

    Raises: ForbiddenError.
    """
    if request.method in _READING:
        return
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise ForbiddenError("requests from pages of other sites are refused")


def _refuse_other_names(request: web.Request) -> None:
    """Refuse a loopback listener's callers that know it by a foreign name.

    A page of another site can point its own name at 127.0.0.1; the browser then takes the gateway
    for that site.
    Raises: ForbiddenError.
    """
    name = (request.url.host or "").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError as error:
        raise ForbiddenError("call a listener on loopback by its address") from error


def _guarded(route: Route, context: Context, *, loopback: bool) -> Handler:
    """Put access control and parameter checks in front of a route's handler."""
    known = frozenset(parameter.name for parameter in route.query)

    async def handle(request: web.Request) -> web.StreamResponse:
        if loopback and route.role is not Role.NOBODY:
            _refuse_other_names(request)
        _refuse_other_sites(request)
        principal: Principal = context.access.admit(
            request.headers.get("Authorization"), route.role
        )
        check_known(request, known, strict=route.strict)
        return await route.handler(Call(request=request, principal=principal, context=context))

    return handle


def _openapi_route(version: str) -> Route:
    """Make the route that describes all routes, itself included."""
    text = ""

    async def describe(call: Call) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    route = Route(
        method="GET",
        path=openapi.PATH,
        handler=describe,
        role=Role.VIEWER,
        summary="This document.",
    )
    text = json.dumps(openapi.document((*ROUTES, route), version))
    return route


def make_application(
    *,
    sources: Sources,
    audit: Path,
    now_ns: Callable[[], int],
    version: str,
    tokens: Mapping[bytes, Token] | None = None,
    loopback: bool = False,
) -> web.Application:
    """Build the application.

    Shape: audit is the file of the audit log; tokens as `access.load_tokens` reads them, None
    when everybody is an operator; loopback tells that the listener is bound to loopback, which
    guards against foreign host names when there are no tokens.
    Raises: StartError when the audit log cannot be opened.
    """
    context = Context(
        sources=sources,
        access=Access(now_ns=now_ns, tokens=tokens),
        audit=AuditLog.open(audit, now_ns),
        now_ns=now_ns,
    )
    application = web.Application(
        middlewares=[answer_errors], client_max_size=BODY_BYTES_MAX, handler_args=None
    )
    application[CONTEXT] = context
    application[console.PAGE] = console.load()
    application.on_response_prepare.append(add_headers)
    for route in (*ROUTES, _openapi_route(version)):
        handler = _guarded(route, context, loopback=loopback and tokens is None)
        application.router.add_route(route.method, route.path, handler)
    return application


CONTEXT: Final = web.AppKey("context", Context)
