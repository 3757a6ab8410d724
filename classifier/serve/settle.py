"""What a server does once, between being loaded and taking requests, so that it starts soon and holds little."""

import ctypes
import gc


def settle() -> None:
    """Give freed memory back, and let the garbage collector pass over what was loaded and stays.

    The models' files, the store's rows and all that was parsed leave free pieces behind, which glibc keeps. What is
    loaded holds itself in no circles, so that a reload's old generation still goes when nobody holds it.
    """
    gc.freeze()
    gc.enable()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc's own; other C libraries keep less
        trim(0)
