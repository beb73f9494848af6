/*
 * memref.c - Trusty's mmap() of a memref handle (flags 0) on a Linux memfd. The
 * linker sends every mmap() and munmap() here; those with flags are Linux's own.
 */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "ipc.h"

#define MEMREFS_MAX 8u

static struct mapping {
    void *base;
    size_t size_bytes;
} mappings[MEMREFS_MAX];

void *__real_mmap(void *at, size_t size_bytes, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *base, size_t size_bytes);
void *__wrap_mmap(void *at, size_t size_bytes, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *base, size_t size_bytes);

size_t memref_mapped_bytes(void) {
    size_t sum = 0;
    for (unsigned i = 0; i < MEMREFS_MAX; i++)
        sum += mappings[i].size_bytes;
    return sum;
}

/*
 * Only a memfd that can never shrink: were the client to truncate it under us,
 * the next touch would kill the application (SIGBUS).
 */
static bool is_memref(int fd, size_t size_bytes) {
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (handle_kind(fd) != HANDLE_MEMREF || seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return false;
    /* Of ordinary pages: munmap() of huge ones wants their size. */
    if (fstat(fd, &st) != 0 || st.st_size <= 0 || st.st_blksize != 4096)
        return false;
    uint64_t have = ((uint64_t)st.st_size + 4095) & ~(uint64_t)4095;
    return size_bytes != 0 && size_bytes <= have;
}

static void *memref_map(size_t size_bytes, int prot, int fd, off_t offset) {
    struct mapping *m = mappings;

    while (m < mappings + MEMREFS_MAX && m->size_bytes != 0)
        m++;
    if (m == mappings + MEMREFS_MAX || offset != 0 || (prot & PROT_EXEC) != 0 ||
        !is_memref(fd, size_bytes)) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    void *base = __real_mmap(NULL, size_bytes, prot, MAP_SHARED, fd, 0);
    if (base != MAP_FAILED)
        *m = (struct mapping){.base = base, .size_bytes = size_bytes};
    return base;
}

void *__wrap_mmap(void *at, size_t size_bytes, int prot, int flags, int fd, off_t offset) {
    if (flags == 0)
        return memref_map(size_bytes, prot, fd, offset);
    return __real_mmap(at, size_bytes, prot, flags, fd, offset);
}

int __wrap_munmap(void *base, size_t size_bytes) {
    struct mapping *m = NULL;

    for (unsigned i = 0; i < MEMREFS_MAX; i++)
        if (mappings[i].size_bytes != 0 && mappings[i].base == base)
            m = &mappings[i];
    if (m != NULL && m->size_bytes != size_bytes) {
        errno = EINVAL;
        return -1;
    }
    int rc = __real_munmap(base, size_bytes);
    if (rc == 0 && m != NULL)
        *m = (struct mapping){0};
    return rc;
}
