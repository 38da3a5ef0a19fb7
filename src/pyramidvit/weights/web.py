"""Asking a web server for a file, and what may go wrong on the way, in words."""

import contextlib
import http.client
import socket
import urllib.error
import urllib.request
from http.client import HTTPMessage, HTTPResponse
from typing import IO
from urllib.parse import urlsplit

from ..errors import UserError

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18
BUSY = {408, 429, 500, 502, 503, 504}  # a server that answers so may answer better in a moment


class CutError(Exception):
    """The connection ended early, or the server asked to come again."""


class UnreachableError(Exception):
    """No server answered at all; the text says why."""


def check_address(address: str) -> None:
    if urlsplit(address).scheme not in ("http", "https"):
        raise UserError(f"{address} is no address of a web server: it must begin with http(s)://")


def open_address(
    address: str, offset: int, validator: str | None
) -> contextlib.AbstractContextManager[HTTPResponse]:
    """Sends the request, for the bytes from `offset` on if the file is still that version."""
    headers = {"User-Agent": "pyramidvit", "Accept-Encoding": "identity"}
    if offset and validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    request = urllib.request.Request(address, headers=headers)
    try:
        return contextlib.closing(
            urllib.request.build_opener(Redirects()).open(request, timeout=TIMEOUT)
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:  # our part is as long as the file, or longer
            return open_address(address, 0, None)
        raise refusal(address, error.code, error.reason) from error
    except urllib.error.URLError as error:
        raise UnreachableError(reason_of(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:  # it answered, and broke off at once
        raise CutError(reason_of(error)) from error


def read(response: HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise CutError(reason_of(error)) from error


def refusal(address: str, code: int, reason: str) -> CutError | UserError:
    if code in BUSY:
        return CutError(f"the server answered {code} {reason}")
    meaning = {
        401: "it asks for a login",
        403: "it refuses to give the file",
        404: "there is no such file; it was moved or removed",
        410: "the file was removed",
        407: "the proxy asks for a login (variable https_proxy)",
    }
    said = f"{code} {reason}".splitlines()[0].strip()
    return UserError(f"cannot fetch {address}: {meaning.get(code, 'the server refuses')} ({said})")


def reason_of(error: object) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known (no network?)"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__).splitlines()[0][:200]


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only to web servers, and never from an encrypted address to a plain one."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_address(newurl)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise UserError(f"{req.full_url} leads to {newurl}, which is not encrypted: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
