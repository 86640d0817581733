"""Prints the compiler's and linker's flags that embed the Python that runs this; fails where it cannot be."""

import os
import sys
import sysconfig


def main() -> int:
    """0, or 1 where there is no shared library, or no headers."""
    include, folder = sysconfig.get_path("include"), sysconfig.get_config_var("LIBDIR")
    library = sysconfig.get_config_var("LDLIBRARY") or ""
    has_headers = os.path.exists(os.path.join(include, "Python.h"))
    if not has_headers or ".so" not in library or not os.path.exists(os.path.join(folder, library)):
        return 1
    name = library.removeprefix("lib").partition(".so")[0]
    sys.stdout.write(f"-isystem {include} -L{folder} -l{name} -Wl,-rpath,{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
