/* lib/storage/storage.h - Trusty's secure storage. Written from shared/TRUSTY.md. */
#ifndef EDGED_STORAGE_H
#define EDGED_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <trusty_ipc.h>

/* Tamper-proof: what was written is never replaced by what was there before. */
#define STORAGE_CLIENT_TP_PORT "com.android.trusty.storage.client.tp"

#define STORAGE_FILE_OPEN_CREATE 1u
#define STORAGE_OP_COMPLETE 1u /* of a write: the transaction ends with it, durable */

typedef handle_t storage_session_t;
typedef uint64_t file_handle_t;
typedef uint64_t storage_off_t;

/* All: NO_ERROR, bytes, or an error. */
int storage_open_session(storage_session_t *session, const char *port);
void storage_close_session(storage_session_t session);
int storage_open_file(storage_session_t session, file_handle_t *file, const char *name, uint32_t flags,
                      uint32_t opflags);
void storage_close_file(file_handle_t file);
ssize_t storage_read(file_handle_t file, storage_off_t offset, void *data, size_t size_bytes);
ssize_t storage_write(file_handle_t file, storage_off_t offset, const void *data, size_t size_bytes,
                      uint32_t opflags);
int storage_end_transaction(storage_session_t session, bool complete);

#endif
