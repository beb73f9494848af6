"""The key server on the network: aiohttp, TLS 1.3 and nothing else. The one module that imports aiohttp.

One request a connection. However slowly somebody speaks, a connection ends after ``timeout_s``; how many there are, in
all and of one address, how large a request is and how often an address asks is limited before anything is decided. What
is decided, is so in one thread, one request after the other (keyserver/office.py).
"""

import asyncio
import logging
import ssl
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional

from aiohttp import web

from edged.errors import ConfigError, KeyRefused, MissingInput, ServerError
from edged.keyserver.config import ServerConfig
from edged.keyserver.limits import Buckets, network_of
from edged.keyserver.office import Answer, Office
from edged.secret import read_secret
from edged.stopping import Stop
from edged.trust import keyprotocol
from edged.trust.keyprotocol import Status

_MINUTE_S = 60.0
_KEY_MAX = 1 << 16
log = logging.getLogger(__name__)


def serve(config: ServerConfig, make_office: Callable[[], Office], stop: Stop, ready: Callable[[int], None]) -> None:
    """Until ``stop``. ready : is told the port      make_office : called in the one thread that uses what it makes

    Raises what ``make_office`` raises, and MissingInput, KeyRefused, ConfigError (TLS files), ServerError (address).
    """
    context = tls_context(config)
    with ThreadPoolExecutor(1, "office") as worker:
        office = worker.submit(make_office).result()
        try:
            asyncio.run(_serve(config, context, office, worker, stop, ready))
        finally:
            worker.submit(office.close).result()


def tls_context(config: ServerConfig) -> ssl.SSLContext:
    read_secret(str(config.private_key), range(_KEY_MAX))  # whose it is, and that nobody else may read it
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        # An encrypted key would have OpenSSL ask on the terminal.
        made.load_cert_chain(str(config.certificate), str(config.private_key), password=lambda: b"")
    except ssl.SSLError as error:
        raise ConfigError("{}: certificate {} and private_key {} are no pair in PEM, or the key is under a passphrase: "
                          "{}".format(config.path, config.certificate, config.private_key, error.reason)) from error
    except PermissionError as error:
        raise KeyRefused("{}: {}: run as a user who may read it".format(config.certificate, error.strerror)) from error
    except OSError as error:
        raise MissingInput("{}: {}".format(config.certificate, error.strerror)) from error
    return made


async def _serve(config: ServerConfig, context: ssl.SSLContext, office: Office, worker: ThreadPoolExecutor, stop: Stop,
                 ready: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(_application(config, office, worker), access_log=None, auto_decompress=False)
    await runner.setup()
    stopped = asyncio.Event()
    loop.add_reader(stop.fileno(), stopped.set)
    open_now: "Counter[str]" = Counter()
    try:
        listening = await loop.create_server(
            lambda: _Connection(runner.server(), config, open_now),  # type: ignore[misc]
            *config.bind, ssl=context, ssl_handshake_timeout=config.limits.timeout_s)
    except OSError as error:
        await runner.cleanup()
        raise ServerError("bind {}:{}: {}".format(*config.bind, error.strerror)) from error
    try:
        ready(listening.sockets[0].getsockname()[1])
        await stopped.wait()
    finally:
        loop.remove_reader(stop.fileno())
        listening.close()
        await runner.cleanup()


def _application(config: ServerConfig, office: Office, worker: ThreadPoolExecutor) -> web.Application:
    addresses = Buckets(config.limits.per_address, _MINUTE_S)

    def deciding(decide: Callable[[bytes], Answer]) -> Any:
        async def handle(request: web.Request) -> web.Response:
            wait_s = addresses.take(network_of(request.remote), time.monotonic())
            if wait_s:
                log.warning("%s asks too often", request.remote)
                return _response(Answer(Status.TOO_OFTEN, keyprotocol.refusal(
                    "this address asks too often: wait {:.0f} s".format(wait_s + 1)), wait_s))
            body = await request.read()
            if len(body) > keyprotocol.REQUEST_MAX:  # aiohttp's releases differ by one byte in what they let pass
                raise web.HTTPRequestEntityTooLarge(keyprotocol.REQUEST_MAX, len(body))
            return _response(await asyncio.get_running_loop().run_in_executor(worker, decide, body))
        return handle

    application = web.Application(client_max_size=keyprotocol.REQUEST_MAX + 1, middlewares=[_refuse])
    application.router.add_post(keyprotocol.CHALLENGE, deciding(office.challenge))
    application.router.add_post(keyprotocol.EVIDENCE, deciding(office.evidence))
    return application


@web.middleware
async def _refuse(request: web.Request, handler: Any) -> web.StreamResponse:
    """What aiohttp itself refuses, in our form."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        answer = Answer(Status.TOO_LARGE, keyprotocol.refusal("a request has at most {} bytes".format(
            keyprotocol.REQUEST_MAX)))
    except web.HTTPException as error:
        answer = Answer(error.status, keyprotocol.refusal(error.reason))  # type: ignore[arg-type]
    return _response(answer)


def _response(answer: Answer) -> web.Response:
    made = web.Response(status=int(answer.status), body=answer.body, content_type=keyprotocol.MEDIA_TYPE)
    if answer.wait_s:
        made.headers["Retry-After"] = "{:.0f}".format(answer.wait_s + 1)
    made.force_close()
    return made


class _Connection(asyncio.Protocol):
    """aiohttp's own protocol, for a limited time, and only where there are not too many."""

    def __init__(self, inner: asyncio.Protocol, config: ServerConfig, open_now: "Counter[str]") -> None:
        self._inner, self._limits, self._open = inner, config.limits, open_now
        self._end: Optional[asyncio.TimerHandle] = None
        self._network = ""

    def connection_made(self, transport: Any) -> None:
        self._network = network_of((transport.get_extra_info("peername") or ("",))[0])
        self._open[self._network] += 1
        if (self._open[self._network] > self._limits.connections_per_address
                or sum(self._open.values()) > self._limits.connections):
            log.warning("too many connections, of %s", self._network)
            transport.abort()
        else:
            self._end = asyncio.get_running_loop().call_later(self._limits.timeout_s, transport.abort)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Optional[Exception]) -> None:
        if self._end is not None:
            self._end.cancel()
        self._open[self._network] -= 1
        if not self._open[self._network]:
            del self._open[self._network]
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> Optional[bool]:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
