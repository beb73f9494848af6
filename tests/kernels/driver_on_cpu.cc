/*
 * libcuda.so.1 without a GPU: what pycuda asks of the CUDA driver when cuda.py uses it, kernels run by cuda_on_cpu.h.
 * It is for pycuda as it is installed, built and linked to this library; fake_pycuda.py stands for pycuda and driver
 * together where pycuda is not.
 *
 * As a driver, and no kinder: a call without a current context, to memory that is none, with arguments of another size,
 * is refused. What goes into a stream waits there until somebody asks for an event, and the streams take turns at
 * random. Memory is poisoned when it is new. The driver_... functions are the tests' own.
 */
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

typedef unsigned int u32;
extern "C" int run_kernel(const char *name, u32 threads, u32 wide, u32 high, u32 processors, const u32 *w, const u32 *x,
                          const u32 *u, u32 *y, const u32 *shape);

namespace {

struct Context { CUresult broken = CUDA_SUCCESS; /* for good: as after an illegal address */ };
struct Kernel { std::string name; };
struct Event { Context *of; bool done; double at; };
struct Work { std::shared_ptr<Event> waits; std::function<void()> act; };
struct Stream { Context *of; std::deque<Work> queue; };
struct Memory { Context *of; size_t size; bool mapped; };

std::recursive_mutex lock;
std::mt19937 draw(7);
std::map<CUdeviceptr, Memory> memory;   /* the device's, and the host's that it reaches */
std::set<Stream *> streams;
std::map<CUevent, std::shared_ptr<Event>> events;
std::map<std::string, int> refusals;    /* call -> code, until it is taken back */
std::map<std::string, int> counts;
int devices = 1, integrated, hanging, contexts;
double now;
thread_local std::vector<Context *> current;

#define CALL                                                          \
    std::lock_guard<std::recursive_mutex> held(lock);                 \
    counts[__func__]++;                                               \
    if (refusals.count(__func__)) return (CUresult)refusals[__func__]
#define CALL_IN_CONTEXT                                               \
    CALL;                                                             \
    if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;           \
    if (current.back()->broken != CUDA_SUCCESS) return current.back()->broken

bool holds(CUdeviceptr address, size_t size) {
    auto after = memory.upper_bound(address);
    if (after == memory.begin())
        return false;
    --after;
    return address + size <= after->first + after->second.size;
}

/* One thing that may be done now; false where there is none. */
bool some_work() {
    std::vector<Stream *> ready;
    for (Stream *stream : streams)
        if (!stream->queue.empty() && (stream->queue.front().waits == nullptr || stream->queue.front().waits->done))
            ready.push_back(stream);
    if (ready.empty())
        return false;
    Stream *stream = ready[draw() % ready.size()];
    Work work = stream->queue.front();
    stream->queue.pop_front();
    now += 1;
    if (work.act)
        work.act();
    return true;
}

void all_work() {
    while (!hanging && some_work())
        ;
}

CUresult allocate(CUdeviceptr *address, size_t size) {
    void *made = nullptr;
    if (size == 0 || posix_memalign(&made, 256, size) != 0)
        return size == 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    memset(made, 0xA5, size);
    memory[(CUdeviceptr)made] = {current.back(), size, false};
    *address = (CUdeviceptr)made;
    return CUDA_SUCCESS;
}

CUresult give_back(CUdeviceptr address) {
    if (memory.count(address) == 0)
        return CUDA_ERROR_INVALID_VALUE;
    all_work(); /* as a driver waits for what uses it */
    memory.erase(address);
    free((void *)address);
    return CUDA_SUCCESS;
}

CUresult copy(CUstream given, void *into, const void *from, size_t size, CUdeviceptr on_device) {
    if (!holds(on_device, size))
        return CUDA_ERROR_INVALID_VALUE;
    ((Stream *)given)->queue.push_back({nullptr, [=] { memcpy(into, from, size); }});
    return CUDA_SUCCESS;
}

}

extern "C" {

/* ---- the tests' own ---- */

void driver_refuse(const char *call, int code) { if (code) refusals[call] = code; else refusals.erase(call); }
void driver_set(int count, int is_integrated) { devices = count; integrated = is_integrated; }
void driver_hang(int whether) { hanging = whether; }
int driver_count(const char *call) { return counts[call]; }
int driver_held(void) { return (int)memory.size() + (int)streams.size() + (int)events.size() + contexts; }

/* ---- the driver ---- */

CUresult cuInit(unsigned) { CALL; return devices < 0 ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { CALL; *version = CUDA_VERSION; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult code, const char **text) {
    *text = code == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory"
            : code == CUDA_ERROR_ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
            : code == CUDA_ERROR_NO_DEVICE ? "no CUDA-capable device is detected" : "refused";
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int *count) { CALL; *count = devices; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int number) {
    CALL;
    *device = number;
    return number < devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char *name, int size, CUdevice) {
    CALL;
    snprintf(name, size, "CPU as a GPU");
    return CUDA_SUCCESS;
}
CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice) {
    CALL;
    *major = 8;
    *minor = 7;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice) {
    CALL;
    *value = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8
             : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 7
             : which == CU_DEVICE_ATTRIBUTE_INTEGRATED ? integrated
             : which == CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY ? 1 : 1000;
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate(CUcontext *context, unsigned, CUdevice) {
    CALL;
    Context *made = new Context;
    contexts++;
    current.push_back(made);
    *context = (CUcontext)made;
    return CUDA_SUCCESS;
}
CUresult cuCtxDestroy(CUcontext context) {
    CALL;
    if (current.empty() || current.back() != (Context *)context)
        return CUDA_ERROR_INVALID_CONTEXT;
    current.pop_back();
    contexts--;
    Context *gone = (Context *)context; /* and all that is its own */
    for (auto one = streams.begin(); one != streams.end();)
        if ((*one)->of == gone) {
            delete *one;
            one = streams.erase(one);
        } else
            ++one;
    for (auto one = events.begin(); one != events.end();)
        one = one->second->of == gone ? events.erase(one) : std::next(one);
    for (auto one = memory.begin(); one != memory.end();)
        if (one->second.of == gone) {
            free((void *)one->first);
            one = memory.erase(one);
        } else
            ++one;
    delete gone;
    return CUDA_SUCCESS;
}
CUresult cuCtxDetach(CUcontext context) { return cuCtxDestroy(context); } /* one that was never attached to */
CUresult cuCtxPushCurrent(CUcontext context) { CALL; current.push_back((Context *)context); return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent(CUcontext *context) {
    CALL;
    if (current.empty())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context != nullptr)
        *context = (CUcontext)current.back();
    current.pop_back();
    return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) { CALL_IN_CONTEXT; *device = 0; return CUDA_SUCCESS; }
CUresult cuCtxSynchronize(void) { CALL_IN_CONTEXT; all_work(); return CUDA_SUCCESS; }

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned, CUjit_option *, void **) {
    CALL_IN_CONTEXT;
    *module = (CUmodule)(void *)1;
    return memcmp(image, "\177ELF", 4) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
CUresult cuModuleUnload(CUmodule) { CALL_IN_CONTEXT; return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule, const char *name) {
    CALL_IN_CONTEXT;
    static std::map<std::string, Kernel> kernels;
    kernels[name].name = name;
    *function = (CUfunction)&kernels[name];
    return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute, CUfunction) {
    CALL_IN_CONTEXT;
    *value = 0;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetBlockShape(CUfunction, int, int, int) { CALL_IN_CONTEXT; return CUDA_SUCCESS; }

CUresult cuLaunchKernel(CUfunction function, unsigned wide, unsigned high, unsigned, unsigned threads, unsigned,
                        unsigned, unsigned, CUstream stream, void **, void **extra) {
    CALL_IN_CONTEXT;
    struct Arguments { const u32 *w, *x, *u; u32 *y; u32 shape[11]; } given;
    const size_t size = 4 * 8 + 11 * 4;
    if (extra == nullptr || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER || extra[2] != CU_LAUNCH_PARAM_BUFFER_SIZE ||
        *(size_t *)extra[3] != size)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&given, extra[1], size);
    std::string name = ((Kernel *)function)->name;
    Context *of = current.back();
    ((Stream *)stream)->queue.push_back({nullptr, [=] {
        const u32 *s = given.shape; /* persons, frames in, out, joints, channels, rows, taps, ... */
        const size_t in = 4ul * s[0] * s[1] * s[3] * s[4], out = 4ul * s[0] * s[2] * s[3] * s[5];
        if (!holds((CUdeviceptr)given.w, 4ul * s[5] * s[6] * s[4]) || !holds((CUdeviceptr)given.x, in) ||
            !holds((CUdeviceptr)given.y, out) || (given.u != nullptr && !holds((CUdeviceptr)given.u, out)) ||
            run_kernel(name.c_str(), threads, wide, high, 2, given.w, given.x, given.u, given.y, given.shape) != 0)
            of->broken = CUDA_ERROR_ILLEGAL_ADDRESS;
    }});
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned) {
    CALL_IN_CONTEXT;
    *stream = (CUstream)*streams.insert(new Stream{current.back(), {}}).first;
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
    CALL;
    if (streams.count((Stream *)stream) == 0)
        return CUDA_ERROR_INVALID_HANDLE;
    all_work();
    streams.erase((Stream *)stream);
    delete (Stream *)stream;
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream) { CALL_IN_CONTEXT; all_work(); return current.back()->broken; }
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    CALL_IN_CONTEXT;
    ((Stream *)stream)->queue.push_back({events.at(event), nullptr});
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned) {
    CALL_IN_CONTEXT;
    static size_t next;
    *event = (CUevent)++next;
    events[*event] = std::make_shared<Event>(Event{current.back(), true, 0});
    return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) { CALL; events.erase(event); return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent event, CUstream stream) {
    CALL_IN_CONTEXT;
    std::shared_ptr<Event> fresh =
        std::make_shared<Event>(Event{current.back(), false, 0}); /* who waits for the old recording still does */
    events[event] = fresh;
    ((Stream *)stream)->queue.push_back({nullptr, [fresh] { fresh->done = true; fresh->at = now; }});
    return CUDA_SUCCESS;
}
CUresult cuEventQuery(CUevent event) {
    CALL_IN_CONTEXT;
    if (!hanging)
        some_work();
    if (current.back()->broken != CUDA_SUCCESS)
        return current.back()->broken;
    return events.at(event)->done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult cuEventSynchronize(CUevent) { CALL_IN_CONTEXT; all_work(); return current.back()->broken; }
CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
    CALL_IN_CONTEXT;
    *milliseconds = (float)(events.at(to)->at - events.at(from)->at);
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t size) { CALL_IN_CONTEXT; return allocate(address, size); }
CUresult cuMemFree(CUdeviceptr address) { CALL; return give_back(address); }
CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    CALL_IN_CONTEXT;
    CUresult code = allocate((CUdeviceptr *)address, size);
    if (code == CUDA_SUCCESS)
        memory[(CUdeviceptr)*address].mapped = flags & CU_MEMHOSTALLOC_DEVICEMAP;
    return code;
}
CUresult cuMemFreeHost(void *address) { CALL; return give_back((CUdeviceptr)address); }
CUresult cuMemHostGetDevicePointer(CUdeviceptr *found, void *address, unsigned) {
    CALL_IN_CONTEXT;
    *found = (CUdeviceptr)address;
    return holds((CUdeviceptr)address, 1) && memory[(CUdeviceptr)address].mapped
               ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemcpyHtoD(CUdeviceptr into, const void *from, size_t size) {
    CALL_IN_CONTEXT;
    if (!holds(into, size))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy((void *)into, from, size);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr into, const void *from, size_t size, CUstream stream) {
    CALL_IN_CONTEXT;
    return copy(stream, (void *)into, from, size, into);
}
CUresult cuMemcpyDtoHAsync(void *into, CUdeviceptr from, size_t size, CUstream stream) {
    CALL_IN_CONTEXT;
    return copy(stream, into, (const void *)from, size, from);
}

}
