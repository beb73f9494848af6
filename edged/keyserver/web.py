"""The key server on the network: aiohttp, TLS 1.3 and nothing else. The one module that imports aiohttp.

One request a connection. However slowly somebody speaks, a connection ends ``timeout_s`` after it was accepted, in the
handshake of TLS or later; how many there are, in all, of one address and of its neighbourhood, is limited before that
handshake, how large a request is and how often an address asks before anything is decided. What is decided, is so in
one thread, one request after the other (keyserver/office.py), and not more wait for it than may be connected.
"""

import asyncio
import logging
import ssl
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional

from aiohttp import web

from edged.errors import ConfigError, KeyRefused, MissingInput, ServerError
from edged.keyserver.config import Limits, ServerConfig
from edged.keyserver.limits import Buckets, neighbourhood_of, network_of
from edged.keyserver.office import Answer, Office
from edged.secret import read_secret
from edged.stopping import Stop
from edged.trust import keyprotocol
from edged.trust.keyprotocol import Status

_MINUTE_S = 60.0
_BUSY_S = 5.0
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
    doors = _Doors(config.limits)
    runner = web.AppRunner(_application(config, office, worker, doors), access_log=None, auto_decompress=False)
    await runner.setup()
    stopped = asyncio.Event()
    loop.add_reader(stop.fileno(), stopped.set)
    try:
        listening = await loop.create_server(
            lambda: _Connection(runner.server(), context, doors),  # type: ignore[misc]
            *config.bind, backlog=config.limits.connections)
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


def _application(config: ServerConfig, office: Office, worker: ThreadPoolExecutor, doors: "_Doors") -> web.Application:
    addresses = Buckets(config.limits.per_address, _MINUTE_S)
    queue = _Queue(worker, config.limits.connections)

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
            doors.asked(request.protocol)
            return _response(await queue.decided(decide, body, request))
        return handle

    application = web.Application(client_max_size=keyprotocol.REQUEST_MAX + 1, middlewares=[_refuse])
    application.router.add_post(keyprotocol.CHALLENGE, deciding(office.challenge))
    application.router.add_post(keyprotocol.EVIDENCE, deciding(office.evidence))
    application.router.add_post(keyprotocol.REPORT, deciding(office.report))
    return application


class _Queue:
    """In front of the one thread. As many wait as there are places: a whole fleet may, and who leaves a request behind
    and comes again does not make it longer.
    """

    def __init__(self, worker: ThreadPoolExecutor, count: int) -> None:
        self._worker, self._count, self._waiting = worker, count, 0

    async def decided(self, decide: Callable[[bytes], Answer], body: bytes, request: web.Request) -> Answer:
        busy = Answer(Status.UNAVAILABLE, keyprotocol.refusal("too many ask at once: wait {:.0f} s".format(
            _BUSY_S + 1)), _BUSY_S)
        if self._waiting >= self._count:
            return busy
        self._waiting += 1
        try:  # for whoever has gone meanwhile nothing is decided
            return await asyncio.get_running_loop().run_in_executor(
                self._worker, lambda: busy if request.transport is None else decide(body))
        finally:
            self._waiting -= 1


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


class _Doors:
    """Who is connected, from the first packet on, and who of them has not sent a whole request yet."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._of: "Counter[str]" = Counter()
        self._near: "Counter[str]" = Counter()
        self._silent: "OrderedDict[asyncio.BaseProtocol, _Connection]" = OrderedDict()  # the oldest first
        self._told_s = -_MINUTE_S

    def enter(self, one: "_Connection") -> bool:
        """False where the address has its share already, or all places are in use by who has sent a request.

        Else one more comes at the cost of whoever has been silent for longest: an honest node asks at once, and is out
        of the way of a flood of those that never do. A neighbourhood has half of the places, and is full by itself:
        from there nobody shuts out all others.
        """
        if self._of[one.network] >= self.limits.connections_per_address:
            return self._refuse(one)
        crowded = self._near[one.neighbourhood] >= max(1, self.limits.connections // 2)
        if crowded or sum(self._near.values()) >= self.limits.connections:
            oldest = next((other for other in self._silent.values()
                           if not crowded or other.neighbourhood == one.neighbourhood), None)
            if oldest is None:
                return self._refuse(one)
            oldest.cut()
        self._of[one.network] += 1
        self._near[one.neighbourhood] += 1
        self._silent[one.inner] = one
        return True

    def asked(self, inner: asyncio.BaseProtocol) -> None:
        """A whole request came. inner : aiohttp's side of the connection"""
        self._silent.pop(inner, None)

    def leave(self, one: "_Connection") -> None:
        self._silent.pop(one.inner, None)
        self._of[one.network] -= 1
        self._near[one.neighbourhood] -= 1
        self._forget(one)

    def _forget(self, one: "_Connection") -> None:
        """Counters do not grow by whom they were asked for."""
        for counter, whose in ((self._of, one.network), (self._near, one.neighbourhood)):
            if not counter[whose]:
                del counter[whose]

    def _refuse(self, one: "_Connection") -> bool:
        self._forget(one)
        now_s = time.monotonic()
        if now_s - self._told_s >= _MINUTE_S:  # a flood is not to fill the disk
            self._told_s = now_s
            log.warning("too many connections, of %s", one.network)
        return False


class _Connection(asyncio.Protocol):
    """A place where there is one, then TLS, then aiohttp's own protocol; for a limited time in all."""

    def __init__(self, inner: asyncio.Protocol, context: ssl.SSLContext, doors: _Doors) -> None:
        self.inner, self._context, self._doors = inner, context, doors
        self._plain: Any = None
        self._end: Optional[asyncio.TimerHandle] = None
        self._shaking: Optional["asyncio.Task[None]"] = None
        self._inside = self._served = False
        self._early = b""  # what came with the end of the handshake
        self.network = self.neighbourhood = ""

    def connection_made(self, transport: Any) -> None:
        """As the socket is accepted."""
        self._plain = transport
        address = (transport.get_extra_info("peername") or ("",))[0]
        self.network, self.neighbourhood = network_of(address), neighbourhood_of(address)
        self._inside = self._doors.enter(self)
        if not self._inside:
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(self._doors.limits.timeout_s, self.cut)
        self._shaking = loop.create_task(self._shake())

    async def _shake(self) -> None:
        try:
            made = await asyncio.get_running_loop().start_tls(
                self._plain, self, self._context, server_side=True,
                ssl_handshake_timeout=self._doors.limits.timeout_s)
        except OSError:  # of TLS, of the network, or too late
            made = None
        except BaseException:  # the server stops
            self.cut()
            raise
        if made is None or not self._inside:
            self.cut()
            return
        self._served = True
        self.inner.connection_made(made)
        if self._early:
            self.inner.data_received(self._early)

    def cut(self) -> None:
        self._leave()
        self._plain.abort()

    def _leave(self) -> None:
        if self._end is not None:
            self._end.cancel()
        if self._inside:
            self._inside = False
            self._doors.leave(self)

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._leave()
        if self._served:
            self.inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._served:
            self.inner.data_received(data)
        else:
            self._early += data

    def eof_received(self) -> Optional[bool]:
        return self.inner.eof_received() if self._served else None

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()
