#include "window.h"

#include <stdint.h>

#include <trusty_ipc.h>

#include "port.h"

#if EDGED_PORT_WINDOW
#include <sys/mman.h>

#define PAGE_BYTES ((size_t)4096)
/* Trusty on Xavier gives an application 32 MiB of addresses; a 64-bit port more.
 * The full-size network's window is 17.1 MiB: a 32-bit port moves it in messages. */
#define WINDOW_MAX_BYTES (sizeof(void *) == 4 ? (size_t)16 << 20 : (size_t)1 << 30)

static size_t mapped_bytes;

static size_t page_round(size_t size_bytes) {
    return (size_bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

bool port_has_window(void) {
    return true;
}

void *port_window_map(int handle, size_t size_bytes) {
    void *base = MAP_FAILED;

    /* The platform refuses a memref that is smaller than what is asked. */
    if (size_bytes != 0 && size_bytes <= WINDOW_MAX_BYTES)
        base = mmap(NULL, page_round(size_bytes), PROT_READ | PROT_WRITE, 0, handle, 0);
    close(handle);
    if (base == MAP_FAILED)
        return NULL;
    mapped_bytes += page_round(size_bytes);
    return base;
}

void port_window_unmap(void *base, size_t size_bytes) {
    if (munmap(base, page_round(size_bytes)) == 0)
        mapped_bytes -= page_round(size_bytes);
}

size_t window_mapped_bytes(void) {
    return mapped_bytes;
}

#else

bool port_has_window(void) {
    return false;
}

void *port_window_map(int handle, size_t size_bytes) {
    (void)size_bytes;
    close(handle);
    return NULL;
}

void port_window_unmap(void *base, size_t size_bytes) {
    (void)base;
    (void)size_bytes;
}

size_t window_mapped_bytes(void) {
    return 0;
}

#endif
