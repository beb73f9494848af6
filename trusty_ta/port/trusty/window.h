/*
 * window.h - the client's shared memory. A port without memrefs (NVIDIA's L4T R32)
 * is built with EDGED_PORT_WINDOW=0: bulk data then goes by messages alone.
 */
#ifndef EDGED_WINDOW_H
#define EDGED_WINDOW_H

#include <stddef.h>

#ifndef EDGED_PORT_WINDOW
#define EDGED_PORT_WINDOW 1
#endif

size_t window_mapped_bytes(void);

#endif
