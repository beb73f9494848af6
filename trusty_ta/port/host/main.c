/*
 * main.c - how an application starts on Linux.
 *
 * Everything that needs a file, much stack or a system call that the sandbox
 * forbids happens here, first; then the application's own main() runs on its own
 * stack and never returns but in error.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <uapi/err.h>

#include "crypto.h"
#include "host.h"
#include "ipc.h"
#include "socket.h"

#define SIGNAL_STACK_BYTES 65536u

/* The longest name in DIR: our sockets are opened by it alone, our clients' by the whole path. */
#define LONGEST_SOCKET "com.edged.key.eval.ta"

int application_main(void); /* main() of port/trusty/NAME/main.c, renamed by the Makefile */

void host_log(const char *text, const char *name) {
    char line[256];
    int n = name != NULL ? snprintf(line, sizeof(line), "%s: %s: %s\n", host_application.name, name, text)
                         : snprintf(line, sizeof(line), "%s: %s\n", host_application.name, text);
    size_t size = n < 0 ? 0 : (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1;
    ssize_t written = write(STDERR_FILENO, line, size);
    (void)written; /* nowhere to say so */
}

/*
 * A stop is like a power cut, which every client must stand anyway. The sockets
 * stay behind: removing them is beyond the sandbox, and the next start does it.
 */
static void on_stop(int signal_number) {
    (void)signal_number;
    _exit(HOST_EXIT_OK);
}

static int usage(int code) {
    fprintf(code == HOST_EXIT_OK ? stdout : stderr,
            "usage: %s --dir DIR [--die-with-parent PID]\n"
            "  DIR                     folder of the sockets and of the emulated device's secrets\n"
            "  --die-with-parent PID   stop when the thread of process PID that started this one ends\n"
            "Prints `ready` when it listens. Exit: 0 stopped, 2 usage, 69 unavailable,\n"
            "77 permission, 78 DIR too long for a socket's path. This enclave is emulated: it protects nothing.\n",
            host_application.name);
    return code;
}

static int exit_of_error(int rc) {
    switch (rc) {
    case NO_ERROR:
        return HOST_EXIT_OK;
    case ERR_ACCESS_DENIED:
    case ERR_NOT_ALLOWED:
        return HOST_EXIT_PERMISSION;
    default:
        return HOST_EXIT_UNAVAILABLE;
    }
}

/* Only 0, 1 and 2 survive, and those do exist: a socket never lands among them. */
static void clean_descriptors(void) {
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    for (fd = STDERR_FILENO + 1; fd < DESCRIPTORS_MAX; fd++)
        close(fd);
#ifdef SYS_close_range
    syscall(SYS_close_range, (unsigned)DESCRIPTORS_MAX, ~0u, 0u);
#endif
}

/* On a stack of its own: the application's may be full, and is measured. */
static int catch_signals(void) {
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_ONSTACK};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    stack_t stack = {.ss_size = SIGNAL_STACK_BYTES};

    stack.ss_sp = mmap(NULL, SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) != 0 ||
        sigaction(SIGTERM, &stop, NULL) != 0 || sigaction(SIGINT, &stop, NULL) != 0 ||
        sigaction(SIGPIPE, &ignore, NULL) != 0)
        return ERR_GENERIC;
    return NO_ERROR;
}

/* No core file, no debugger of the same user, no more handles than Trusty gives. */
static int harden(void) {
    struct rlimit none = {0, 0};
    struct rlimit files = {DESCRIPTORS_MAX, DESCRIPTORS_MAX};

    if (setrlimit(RLIMIT_CORE, &none) != 0 || setrlimit(RLIMIT_NOFILE, &files) != 0)
        return ERR_GENERIC;
#ifndef EDGED_SANITIZE /* the leak checker is a debugger */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return ERR_GENERIC;
#endif
    return NO_ERROR;
}

static int fail(const char *what, int rc) {
    host_log(rc == ERR_ACCESS_DENIED ? "permission denied" : "failed", what);
    return exit_of_error(rc);
}

/* False where it has ended already: nobody would ever stop this one, and its lock would keep the next one out. */
static bool die_with(const char *parent) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    return strtol(parent, NULL, 10) == (long)getppid();
}

int main(int argc, char **argv) {
    const char *dir = NULL, *parent = NULL;
    int rc;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc)
            dir = argv[++i];
        else if (strcmp(argv[i], "--die-with-parent") == 0 && i + 1 < argc)
            parent = argv[++i];
        else
            return usage(strcmp(argv[i], "--help") == 0 ? HOST_EXIT_OK : HOST_EXIT_USAGE);
    }
    if (dir == NULL)
        return usage(HOST_EXIT_USAGE);
    if (parent != NULL && !die_with(parent)) {
        host_log("not the parent of this process, or ended", parent);
        return HOST_EXIT_UNAVAILABLE;
    }

    clean_descriptors();
    if (strlen(dir) + sizeof("/" LONGEST_SOCKET) > sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        host_log("DIR is too long: name a folder with a shorter path, for a Unix socket's path has at most 107 bytes",
                 NULL);
        return HOST_EXIT_CONFIG;
    }
    host_log("EMULATED enclave: PROTECTS NOTHING from whoever controls this machine", NULL);
    if (chdir(dir) != 0) {
        host_log(strerror(errno), dir);
        return errno == EACCES ? HOST_EXIT_PERMISSION : HOST_EXIT_UNAVAILABLE;
    }
    if ((rc = catch_signals()) < 0)
        return fail("signals", rc);
    if ((rc = harden()) < 0)
        return fail("limits", rc);
    if ((rc = ipc_init()) < 0)
        return fail("message buffers", rc);
    if (host_application.connects) /* its end of the channel has a buffer, too */
        platform_add_channels(IPC_MAX_MSG_BYTES);
    if ((rc = socket_lock(host_application.name)) < 0) {
        if (rc == ERR_ALREADY_EXISTS)
            host_log("already running in this folder", dir);
        return fail("lock", rc);
    }
    if (crypto_init() != 0)
        return fail("crypto library", ERR_GENERIC);
    if ((rc = device_open()) < 0)
        return fail("device key or station secret", rc);
    if ((rc = storage_open()) < 0)
        return fail("counter", rc);
    if ((rc = platform_measure()) < 0)
        return fail("measurement", rc);
    platform_read_signature();
    if ((rc = sandbox_prepare(host_application.connects)) < 0)
        return fail("system call filter", rc);

    rc = stack_run(application_main);
    return fail("application", rc);
}
