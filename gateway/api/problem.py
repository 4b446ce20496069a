"""How failures are told: `application/problem+json`, with the status of the one error table.

Law: a client sees the sentence of an error from `gateway.errors` and nothing of the inside of the
process. Every answer, good or bad, carries the security headers.
Source: RFC 9457; OWASP Secure Headers.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from gateway.errors import RequestError, UnauthenticatedError, WeirError, answer_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Make a problem document; its title is the phrase of the status."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return web.Response(
        status=status,
        body=json.dumps(document).encode(),
        content_type="application/problem+json",
        headers=headers,
    )


def problem_of(error: WeirError) -> web.Response:
    """Answer an error of ours."""
    headers: dict[str, str] = {}
    if isinstance(error, RequestError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = 'Bearer realm="weir"'
    return problem(answer_of(error).http_status, str(error), headers)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into problem documents."""
    try:
        return await handler(request)
    except WeirError as error:
        return problem_of(error)
    except web.HTTPMethodNotAllowed as error:
        allow = ", ".join(sorted(error.allowed_methods))
        return problem(405, f"use {allow}", {"Allow": allow})
    except web.HTTPRequestEntityTooLarge:
        return problem(413, "the request body is too large")
    except web.HTTPNotFound:
        return problem(404, "there is nothing at this path")
    except web.HTTPException as error:
        return problem(error.status, error.reason)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the security headers that a response does not set itself."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
