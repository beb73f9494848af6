"""pycuda.driver without a GPU: what cuda.py uses of it, kernels run by cuda_on_cpu.h.

Device memory is memory of this process, poisoned when it is new. What goes into a stream waits there, and is carried
out only when somebody asks for an event, the streams taking turns at random: whoever forgets to wait for something
gets what was there before. Every call and every piece of work passes ``trouble``, by which tests break things.
"""

import random
import types

import numpy as np

POISON = 0xA5


class Error(Exception):
    pass


class Trouble:
    """What a test does to the device: ``calls`` of a name raise, ``work`` is changed; counts are of what happened."""

    def __init__(self):
        self.raising = {}   # call -> exception
        self.on_kernel = None  # (run, y) -> None, in the place of run()
        self.hanging = False
        self.early = False  # events are over before the work is
        self.counts = {}

    def call(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1
        error = self.raising.get(name)
        if error is not None:
            raise error


class Allocation:
    def __init__(self, device, size):
        self._device, self.size = device, size
        self.memory = np.full(size + 64, POISON, np.uint8)
        self.address = -(-self.memory.ctypes.data // 32) * 32
        device.allocations[self.address] = self

    def __int__(self):
        assert self.memory is not None, "used after it was freed"
        return self.address

    def free(self):
        assert self.memory is not None, "freed twice"
        del self._device.allocations[self.address]
        self.memory = None


class Pagelocked:
    def __init__(self, device, words, dtype, mapped):
        dtype = np.dtype(dtype)
        self.allocation = Allocation(device, max(words * dtype.itemsize, 1))
        self.mapped = mapped
        begin = self.allocation.address - self.allocation.memory.ctypes.data
        view = self.allocation.memory[begin:begin + words * dtype.itemsize]
        self.__array_interface__ = {"shape": (words,), "typestr": dtype.str, "version": 3,
                                    "data": (view.ctypes.data, False)}

    def __del__(self):
        self.allocation.free()

    def get_device_pointer(self):
        assert self.mapped, "not mapped"
        return self.allocation.address


class Stream:
    def __init__(self, device):
        self.device, self.queue = device, []
        device.streams.append(self)

    def synchronize(self):
        while self.queue:
            self.device.some_work()

    def wait_for_event(self, event):
        self.device.trouble.call("wait_for_event")
        self.queue.append(("wait", event))


class Event:
    def __init__(self, device):
        self.device, self.done, self.at = device, True, 0

    def record(self, stream):
        self.device.trouble.call("record")
        self.done = False
        stream.queue.append(("event", self))
        return self

    def query(self):
        self.device.trouble.call("query")
        if self.device.trouble.early:
            return True
        if self.device.trouble.hanging:
            return False
        self.device.some_work()
        return self.done

    def synchronize(self):
        while not self.query():
            pass

    def time_since(self, other):
        return float(self.at - other.at)


class Device:
    """``kernels``: of onacpu. capability, integrated: what the device says of itself."""

    def __init__(self, kernels, capability=(8, 7), integrated=False, name="Fake GPU", count=1):
        self.kernels, self.capability, self.integrated = kernels, capability, integrated
        self.name, self.count = name, count
        self.trouble, self.allocations, self.streams = Trouble(), {}, []
        self.random, self.clock, self.current = random.Random(7), 0, 0
        self.launched = []

    def some_work(self):
        """One thing that may be done now, of a stream drawn at random."""
        ready = [stream for stream in self.streams if stream.queue
                 and not (stream.queue[0][0] == "wait" and not stream.queue[0][1].done)]
        if ready:
            kind, what = self.random.choice(ready).queue.pop(0)
            self.clock += 1
            if kind == "event":
                what.done, what.at = True, self.clock
            elif kind == "work":
                what()

    def owner(self, address, size):
        """The allocation that holds these bytes: nothing else may be touched."""
        for begin, allocation in self.allocations.items():
            if begin <= address and address + size <= begin + allocation.size:
                return allocation
        raise AssertionError("{} bytes at {:x} are of no allocation".format(size, address))

    def view(self, address, size):
        allocation = self.owner(address, size)
        begin = address - allocation.memory.ctypes.data
        return allocation.memory[begin:begin + size]

    def driver(self):
        """A module to stand for pycuda.driver."""
        made, device = types.ModuleType("pycuda.driver"), self
        trouble = self.trouble

        class FakeDevice:
            @staticmethod
            def count():
                return device.count

            def __init__(self, number):
                trouble.call("Device")
                assert number < device.count

            def name(self):
                return device.name

            def compute_capability(self):
                return device.capability

            def get_attribute(self, attribute):
                return int(device.integrated) if attribute in ("INTEGRATED", "CAN_MAP_HOST_MEMORY") else 1000

            def make_context(self):
                trouble.call("make_context")
                device.current += 1
                return Context()

        class Context:
            def pop(self):
                device.current -= 1

            def push(self):
                device.current += 1

            def detach(self):
                """Of the current one: it is destroyed, and off the thread's stack."""
                device.current -= 1

        class Function:
            def __init__(self, name):
                self.name = name

            def __call__(self, w, x, u, y, *numbers, block, grid, stream):
                trouble.call("launch")
                assert all(isinstance(one, np.number) for one in (w, x, u, y) + numbers)  # as pycuda packs them
                numbers = [int(number) for number in numbers]
                persons, frames_in, frames, joints, channels, rows, taps, _, _, _, end = numbers
                for address, words in ((w, rows * taps * channels), (x, persons * frames_in * joints * channels),
                                       (y, persons * frames * joints * rows)):
                    device.owner(int(address), 4 * words)
                device.launched.append((self.name, tuple(numbers)))

                def run():
                    device.kernels.run(self.name, grid, block[0], int(w), int(x), int(u) or None, int(y), numbers)

                def work():
                    if trouble.on_kernel is None:
                        run()
                    else:
                        answer = device.view(int(y), 4 * persons * frames * joints * rows)
                        trouble.on_kernel(run, answer.view(np.uint32))

                stream.queue.append(("work", work))

        def copying(into, out_of, size):
            def work():
                into[:] = out_of[:] if len(out_of) == size else out_of[:size]
            return work

        def plain(address):
            """Boost.Python takes no scalar of NumPy's for an address."""
            assert type(address) is int or isinstance(address, Allocation)
            return int(address)

        def htod(address, array):
            trouble.call("memcpy_htod")
            device.view(plain(address), array.nbytes)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

        def htod_async(address, array, stream):
            trouble.call("memcpy_htod_async")
            source = array.view(np.uint8)
            stream.queue.append(("work", copying(device.view(plain(address), array.nbytes), source, array.nbytes)))

        def dtoh_async(array, address, stream):
            trouble.call("memcpy_dtoh_async")
            target = array.view(np.uint8)
            stream.queue.append(("work", copying(target, device.view(plain(address), array.nbytes), array.nbytes)))

        def mem_alloc(size):
            trouble.call("mem_alloc")
            return Allocation(device, size)

        def pagelocked_empty(words, dtype, mem_flags=0):
            trouble.call("pagelocked_empty")
            return np.asarray(Pagelocked(device, words, dtype, bool(mem_flags)))

        def module_from_buffer(cubin):
            trouble.call("module_from_buffer")
            module = types.SimpleNamespace(get_function=Function)
            return module

        def init():
            trouble.call("init")

        for name, value in {
            "Error": Error, "get_driver_version": lambda: 12090, "Device": FakeDevice, "init": init,
            "mem_alloc": mem_alloc, "memcpy_htod": htod, "memcpy_htod_async": htod_async,
            "memcpy_dtoh_async": dtoh_async, "pagelocked_empty": pagelocked_empty,
            "module_from_buffer": module_from_buffer, "Stream": lambda: Stream(device),
            "Event": lambda flags=0: Event(device),
            "device_attribute": types.SimpleNamespace(**{
                name: name for name in ("INTEGRATED", "CAN_MAP_HOST_MEMORY", "MULTIPROCESSOR_COUNT", "CLOCK_RATE",
                                        "MEMORY_CLOCK_RATE", "GLOBAL_MEMORY_BUS_WIDTH")}),
            "event_flags": types.SimpleNamespace(DISABLE_TIMING=2),
            "host_alloc_flags": types.SimpleNamespace(DEVICEMAP=2),
        }.items():
            setattr(made, name, value)
        return made
