/*
 * sandbox.c - after start the application needs its sockets, memory and time (the key
 * application its monotonic store, too), and nothing else: no other file, no program, no other
 * kind of socket. Any other system call kills the process.
 *
 * What a filter cannot see stays open: connect() reaches any Unix SEQPACKET
 * socket whose path the user may open, fstat's newfstatat any path's metadata.
 *
 * Not in sanitizer builds, whose run-time opens files when it reports.
 */
#include "host.h"

#include <uapi/err.h>

#ifdef EDGED_SANITIZE

int sandbox_prepare(bool connects) {
    (void)connects;
    return NO_ERROR;
}

int sandbox_enter(void) {
    host_log("sanitizer build: no system call filter", NULL);
    return NO_ERROR;
}

#else

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif

#define ALLOW(name) seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(name), 0)
#define ALLOW_IF(name, ...) \
    seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(name), \
                           sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp), \
                           (struct scmp_arg_cmp[]){__VA_ARGS__})

static struct sock_filter program[256];
static unsigned short program_steps;

static int add_rules(scmp_filter_ctx filter, bool connects) {
    int rc = 0;

    /* channels */
    rc |= ALLOW(recvmsg) | ALLOW(sendmsg) | ALLOW(accept4) | ALLOW(poll) | ALLOW(ppoll) | ALLOW(close);
    rc |= ALLOW_IF(setsockopt, SCMP_A1(SCMP_CMP_EQ, SOL_SOCKET, 0), SCMP_A2(SCMP_CMP_EQ, SO_SNDBUF, 0));
    if (connects) {
        rc |= ALLOW_IF(socket, SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0),
                       SCMP_A1(SCMP_CMP_EQ, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        rc |= ALLOW(connect);
    }
    /* the monotonic store, which is open already */
    if (storage_descriptor() >= 0) {
        const scmp_datum_t store = (scmp_datum_t)storage_descriptor();
        rc |= ALLOW_IF(pwrite64, SCMP_A0(SCMP_CMP_EQ, store, 0));
        rc |= ALLOW_IF(fdatasync, SCMP_A0(SCMP_CMP_EQ, store, 0));
    }
    /* shared memory: is it sealed, how large is it */
    rc |= ALLOW_IF(fcntl, SCMP_A1(SCMP_CMP_EQ, F_GET_SEALS, 0));
    rc |= ALLOW(fstat) | ALLOW(newfstatat);
    /* memory, never executable */
    rc |= ALLOW_IF(mmap, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    rc |= ALLOW_IF(mprotect, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    rc |= ALLOW(munmap) | ALLOW(mremap) | ALLOW(madvise) | ALLOW(brk) | ALLOW(futex);
    /* randomness (libcrypto asks for its process number to notice a fork) and time */
    rc |= ALLOW(getrandom) | ALLOW(getpid) | ALLOW(clock_gettime) | ALLOW(clock_nanosleep) |
          ALLOW(nanosleep) | ALLOW(gettimeofday);
    /* one line on standard error, "ready" on standard output, and the end */
    rc |= ALLOW_IF(write, SCMP_A0(SCMP_CMP_LE, STDERR_FILENO, 0));
    rc |= ALLOW(rt_sigreturn) | ALLOW(exit) | ALLOW(exit_group) | ALLOW(restart_syscall);
    return rc;
}

/* libseccomp allocates and recurses: it runs on the process's own stack. */
int sandbox_prepare(bool connects) {
    int rc = ERR_GENERIC;
    int fd = memfd_create("filter", MFD_CLOEXEC);
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);

    if (fd >= 0 && filter != NULL && add_rules(filter, connects) == 0 &&
        seccomp_export_bpf(filter, fd) == 0) {
        ssize_t got = pread(fd, program, sizeof(program), 0);
        off_t all = lseek(fd, 0, SEEK_END);
        if (got > 0 && got == all && (size_t)got % sizeof(program[0]) == 0) {
            program_steps = (unsigned short)((size_t)got / sizeof(program[0]));
            rc = NO_ERROR;
        }
    }
    if (filter != NULL)
        seccomp_release(filter);
    if (fd >= 0)
        close(fd);
    return rc;
}

int sandbox_enter(void) {
    struct sock_fprog filter = {.len = program_steps, .filter = program};

    if (program_steps == 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0)
        return ERR_GENERIC;
    return NO_ERROR;
}

#endif
