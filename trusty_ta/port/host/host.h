/*
 * host.h - the parts of the host port, as they see each other. The host port
 * implements the Trusty API of port/include on Linux, one process per
 * application. It PROTECTS NOTHING: whoever is root here reads it all.
 *
 * In the order of their use at start (main.c): device, storage, platform, memory, sandbox;
 * then, on the application's own stack, tipc on ipc on socket.
 */
#ifndef EDGED_HOST_H
#define EDGED_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uapi/trusty_uuid.h>

/** struct host_application - of manifest.json (application.c) */
struct host_application {
    const char *name;
    struct uuid uuid;
    size_t heap_bytes;
    size_t stack_bytes;
    bool connects; /* it is a client of another application's port */
};

extern const struct host_application host_application;

/* Exit codes, as in DESIGN section 10. */
enum host_exit {
    HOST_EXIT_OK = 0,
    HOST_EXIT_USAGE = 2,
    HOST_EXIT_UNAVAILABLE = 69,
    HOST_EXIT_PERMISSION = 77,
    HOST_EXIT_CONFIG = 78
};

/* One line on stderr. Only fixed text and names: never data. */
void host_log(const char *text, const char *name);

/* device.c: the emulated secrets, DIR/device.key and DIR/station.secret. NO_ERROR or ERR_*. */
int device_open(void);

/* storage.c: DIR/counter, of the key application alone; its descriptor, -1 where there is none. */
int storage_open(void);
int storage_descriptor(void);

/* platform.c: hashes the executable, which the sandbox will not let it open. */
int platform_measure(void);
void platform_read_signature(void);
void platform_add_channels(size_t size_bytes);

/* heap.c */
size_t heap_peak_bytes(void);

/* stack.c: runs entry() on the manifest's stack, or says why not. */
int stack_run(int (*entry)(void));
size_t stack_peak_bytes(void);

/* memref.c */
size_t memref_mapped_bytes(void);

/* sandbox.c: prepare() allocates and may take its time; enter() does not. */
int sandbox_prepare(bool connects);
int sandbox_enter(void);

#endif
