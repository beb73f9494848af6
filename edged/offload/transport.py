"""How bulk data of one model crosses the boundary: in messages of 4096 bytes, or through a window.

Both offer the same five moves to bridge.py. What crosses in messages is counted by
connection.Connection; what crosses through the window is counted here (once, though both sides see it).
"""

from abc import ABC, abstractmethod
from typing import Optional

import numpy as np

from edged.enclave import wire
from edged.enclave.client import EvalClient, LoadedModel, Progress
from edged.enclave.window import SharedWindow


class Transport(ABC):
    """Moves bulk data of the model that is loaded."""

    name: str

    def __init__(self, client: EvalClient, model: LoadedModel) -> None:
        self.client = client
        self.model = model
        self.window_bytes_moved = 0

    @abstractmethod
    def weights(self, index: int) -> np.ndarray:
        """wbar (rows, taps, channels) of one product; products in order, once per load."""

    @abstractmethod
    def prepared(self, index: int, persons: int) -> np.ndarray:
        """U + pad (persons, frames_out, joints, rows) of one product of the open preparation, in order."""

    @abstractmethod
    def begin(self, session: int, number: int, invocation: int, sealed: bytes) -> Progress:
        """Hand the sealed clip over; the first step that is due."""

    @abstractmethod
    def x_bar(self, index: int, persons: int) -> np.ndarray:
        """xbar (persons, frames_in, joints, channels) of one product of the due step, in order."""

    def y_bar(self, index: int, persons: int) -> np.ndarray:
        """Where the accelerator shall write ybar (persons, frames_out, joints, rows)."""
        return np.empty(self.model.products[index].y_shape(persons), np.uint32)

    @abstractmethod
    def submit(self, index: int, y_bar: np.ndarray) -> None:
        """Hand ybar in, products in order."""

    def close(self) -> None:
        """Detach; the model stays loaded."""


class MessageTransport(Transport):
    """Everything in messages: all that a Trusty without shared memory has."""

    name = "message"

    def weights(self, index: int) -> np.ndarray:
        out = np.empty(self.model.products[index].w_shape, np.uint32)
        self.client.read_weights(index, out)
        return out

    def prepared(self, index: int, persons: int) -> np.ndarray:
        out = np.empty(self.model.products[index].y_shape(persons), np.uint32)
        self.client.read_prepared(index, out)
        return out

    def begin(self, session: int, number: int, invocation: int, sealed: bytes) -> Progress:
        self.client.open_clip(session, 0, number, invocation, len(sealed))
        self.client.write_clip(sealed)
        return self.client.begin_clip()

    def x_bar(self, index: int, persons: int) -> np.ndarray:
        out = np.empty(self.model.products[index].x_shape(persons), np.uint32)
        self.client.read_x(index, out)
        return out

    def submit(self, index: int, y_bar: np.ndarray) -> None:
        self.client.write_y(index, y_bar)


class WindowTransport(Transport):
    """Bulk data lies in shared memory: the accelerator reads xbar there and writes ybar there."""

    name = "window"

    def __init__(self, client: EvalClient, model: LoadedModel) -> None:
        super().__init__(client, model)
        # A placement without products may need no more than room for the sealed clip.
        head = model.head
        size = max(head.window_bytes, wire.sealed_clip_bytes(head.persons, head.frames, head.joints))
        self._window: Optional[SharedWindow] = client.connection.channel.window(size)
        client.attach_window(self._window)

    def weights(self, index: int) -> np.ndarray:
        self.client.map_weights(index)
        return self._copied(self.model.products[index].w_shape)

    def prepared(self, index: int, persons: int) -> np.ndarray:
        self.client.map_prepared(index)
        return self._copied(self.model.products[index].y_shape(persons))

    def begin(self, session: int, number: int, invocation: int, sealed: bytes) -> Progress:
        assert self._window is not None
        self._window.memory[:len(sealed)] = sealed
        self.window_bytes_moved += len(sealed)
        return self.client.open_clip(session, wire.EVAL_CLIP_WINDOW, number, invocation, len(sealed))

    def x_bar(self, index: int, persons: int) -> np.ndarray:
        product = self.model.products[index]
        view = self._view(product.x_offset, product.x_shape(persons))
        self.window_bytes_moved += view.nbytes
        return view

    def y_bar(self, index: int, persons: int) -> np.ndarray:
        product = self.model.products[index]
        return self._view(product.y_offset, product.y_shape(persons))

    def submit(self, index: int, y_bar: np.ndarray) -> None:
        self.window_bytes_moved += y_bar.nbytes

    def close(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            try:
                self.client.detach_window()
            finally:
                window.close()

    def _view(self, offset: int, shape: tuple) -> np.ndarray:
        assert self._window is not None
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._window.memory, np.uint32, count, offset).reshape(shape)

    def _copied(self, shape: tuple) -> np.ndarray:
        """A copy of what lies at the window's first byte: the next call writes there again."""
        view = self._view(0, shape)
        self.window_bytes_moved += view.nbytes
        return view.copy()
