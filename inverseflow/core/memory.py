"""Large arrays that come and go without a page fault each time."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt


def keep_memory(largest=1 << 30):
    """Let this process keep freed memory for its next arrays of up to `largest` bytes (below 2 GiB).

    glibc gives every array above 32 MB back to the system at once and takes new pages for the next one, which
    costs a network on images of 512 x 512 pixels as much time as its arithmetic. The process holds its peak
    until it ends. Call it once, before the work. Returns False where there is no glibc; nothing changes then.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, largest) and mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
