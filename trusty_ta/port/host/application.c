/* application.c - the one file that is compiled anew for each application. */
#include "host.h"

#include "host_manifest.h"

#ifndef HOST_CONNECTS
#define HOST_CONNECTS 0
#endif

const struct host_application host_application = {
    .name = MANIFEST_APP_NAME,
    .uuid = MANIFEST_UUID,
    .heap_bytes = MANIFEST_MIN_HEAP,
    .stack_bytes = MANIFEST_MIN_STACK,
    .connects = HOST_CONNECTS,
};
