/*
 * platform.c - what the host port says about itself (port/trusty/platform.c is the
 * other half). Memory is measured here because it can be: the budget of 12 MiB is
 * proved on this port.
 */
#include "host.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uapi/err.h>

#include "crypto.h"
#include "port.h"

/* Set by the linker: everything of the executable that is mapped. */
extern const char __executable_start[], _end[];

static size_t channel_bytes;
static uint8_t measurement[32];
static uint8_t signature[PORT_SIGNATURE_BYTES];
static bool is_signed;

void platform_add_channels(size_t size_bytes) {
    channel_bytes += size_bytes;
}

bool port_emulated(void) {
    return true;
}

struct port_boot port_boot_state(void) {
    return (struct port_boot){0}; /* neither fused nor closed to a debugger */
}

void port_memory(struct edged_memory *out) {
    out->heap_limit = host_application.heap_bytes;
    out->heap_peak = heap_peak_bytes();
    out->stack_limit = host_application.stack_bytes;
    out->stack_peak = stack_peak_bytes();
    out->image = (uintptr_t)_end - (uintptr_t)__executable_start;
    out->channels = channel_bytes;
    out->window = memref_mapped_bytes();
}

int platform_measure(void) {
    int rc = ERR_IO;
    struct stat st;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return ERR_IO;
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        size_t size = (size_t)st.st_size;
        void *image = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (image != MAP_FAILED) {
            if (crypto_sha256(image, size, measurement) == 0)
                rc = NO_ERROR;
            munmap(image, size);
        }
    }
    close(fd);
    return rc;
}

/* In the executable's folder, EXECUTABLE.sig: exactly one signature, or there is none. */
void platform_read_signature(void) {
    char path[PATH_MAX + sizeof(".sig")];
    uint8_t more;
    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX);

    if (size <= 0)
        return;
    memcpy(path + size, ".sig", sizeof(".sig"));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    is_signed = read(fd, signature, sizeof(signature)) == (ssize_t)sizeof(signature) && read(fd, &more, 1) == 0;
    close(fd);
}

uint32_t port_measurement_signature(uint8_t out[PORT_SIGNATURE_BYTES]) {
    if (!is_signed)
        return 0;
    memcpy(out, signature, sizeof(signature));
    return sizeof(signature);
}

/* Emulated: the process measured itself, which vouches for nothing. */
void port_measurement(uint8_t out[32]) {
    memcpy(out, measurement, sizeof(measurement));
}
