/*
 * storage.c - Trusty's tamper-proof storage, as far as the key application uses it: one small file, in
 * DIR/counter, which whoever owns DIR may replace. A transaction goes to the older of two places in that
 * file, so that a loss of power leaves one of them whole; the newer whole one counts.
 */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lib/storage/storage.h>
#include <uapi/err.h>

#include "crypto.h"
#include "uuids.h"

#define FILE_NAME "counter"
#define CONTENT_MAX 64u
#define PLACE_BYTES 4096 /* no block of a disk holds parts of both */

/** struct place - one of two; digest: of all before it */
struct place {
    uint64_t sequence; /* 0: nothing was written */
    uint64_t size_bytes;
    uint8_t content[CONTENT_MAX];
    uint8_t digest[32];
};

static int descriptor = -1;
static struct place durable, draft;

int storage_descriptor(void) {
    return descriptor;
}

static int digest_of(const struct place *p, uint8_t out[32]) {
    return crypto_sha256(p, offsetof(struct place, digest), out);
}

static void read_place(off_t at, struct place *best) {
    struct place found;
    uint8_t digest[32];

    if (pread(descriptor, &found, sizeof(found), at) == (ssize_t)sizeof(found) &&
        found.size_bytes <= CONTENT_MAX && digest_of(&found, digest) == 0 &&
        memcmp(digest, found.digest, sizeof(digest)) == 0 && found.sequence > best->sequence)
        *best = found;
}

/* Room for both places now: a later write must not fail for want of it. */
static int make_room(void) {
    static const uint8_t zeros[2 * PLACE_BYTES];
    int folder = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = ERR_IO;

    if (folder >= 0 && pwrite(descriptor, zeros, sizeof(zeros), 0) == (ssize_t)sizeof(zeros) &&
        fsync(descriptor) == 0 && fsync(folder) == 0)
        rc = NO_ERROR;
    if (folder >= 0)
        close(folder);
    return rc;
}

int storage_open(void) {
    static const struct uuid user = KEY_UUID;
    struct stat st;

    if (memcmp(&host_application.uuid, &user, sizeof(user)) != 0)
        return NO_ERROR;
    descriptor = open(FILE_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (descriptor < 0)
        return errno == EACCES || errno == EROFS || errno == ELOOP ? ERR_ACCESS_DENIED : ERR_IO;
    if (fstat(descriptor, &st) != 0 || !S_ISREG(st.st_mode) || (st.st_mode & 077) != 0 || st.st_uid != geteuid()) {
        host_log("must be ours, mode 0600", FILE_NAME);
        return ERR_ACCESS_DENIED;
    }
    if (st.st_size < 2 * PLACE_BYTES) /* new, or power was lost when it was */
        return make_room();
    read_place(0, &durable);
    read_place(PLACE_BYTES, &durable);
    return NO_ERROR;
}

int storage_open_session(storage_session_t *session, const char *port) {
    if (descriptor < 0 || strcmp(port, STORAGE_CLIENT_TP_PORT) != 0)
        return ERR_NOT_FOUND;
    *session = 1; /* one user, no session state */
    draft = durable;
    return NO_ERROR;
}

void storage_close_session(storage_session_t session) {
    (void)session;
    draft = durable;
}

int storage_open_file(storage_session_t session, file_handle_t *file, const char *name, uint32_t flags,
                      uint32_t opflags) {
    (void)session;
    (void)name; /* there is one */
    if (opflags != 0)
        return ERR_NOT_VALID;
    if (draft.sequence == 0 && (flags & STORAGE_FILE_OPEN_CREATE) == 0)
        return ERR_NOT_FOUND;
    *file = 1;
    return NO_ERROR;
}

void storage_close_file(file_handle_t file) {
    (void)file;
}

ssize_t storage_read(file_handle_t file, storage_off_t offset, void *data, size_t size_bytes) {
    (void)file;
    if (offset > draft.size_bytes)
        return ERR_NOT_VALID;
    if (size_bytes > draft.size_bytes - offset)
        size_bytes = (size_t)(draft.size_bytes - offset);
    memcpy(data, draft.content + offset, size_bytes);
    return (ssize_t)size_bytes;
}

ssize_t storage_write(file_handle_t file, storage_off_t offset, const void *data, size_t size_bytes,
                      uint32_t opflags) {
    (void)file;
    if (offset > draft.size_bytes || size_bytes > CONTENT_MAX - offset)
        return ERR_TOO_BIG;
    memcpy(draft.content + offset, data, size_bytes);
    if (offset + size_bytes > draft.size_bytes)
        draft.size_bytes = offset + size_bytes;
    if ((opflags & STORAGE_OP_COMPLETE) != 0) {
        int rc = storage_end_transaction(1, true);
        if (rc < 0)
            return rc;
    }
    return (ssize_t)size_bytes;
}

int storage_end_transaction(storage_session_t session, bool complete) {
    (void)session;
    if (complete) {
        draft.sequence = durable.sequence + 1;
        if (digest_of(&draft, draft.digest) != 0 ||
            pwrite(descriptor, &draft, sizeof(draft), draft.sequence % 2 == 0 ? 0 : PLACE_BYTES) !=
                (ssize_t)sizeof(draft) ||
            fdatasync(descriptor) != 0) {
            draft = durable;
            return ERR_IO;
        }
        durable = draft;
    }
    draft = durable;
    return NO_ERROR;
}
