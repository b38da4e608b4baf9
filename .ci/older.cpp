// What a new compiler's headers ask for and an older system does not have, hidden in the library: see
// older.py.
#include <new>
#include <sstream>

#define HIDDEN __attribute__((visibility("hidden")))

extern "C" {
// Of glibc 2.32. std::shared_ptr skips atomic operations while it says that there is one thread. By this one
// it keeps them, as in a process of several threads, which torch's is.
extern HIDDEN char __libc_single_threaded;
char __libc_single_threaded = 0;

// Of libstdc++ 11: std::__throw_bad_array_new_length(), which by that name could not be hidden.
HIDDEN void _ZSt28__throw_bad_array_new_lengthv() { throw std::bad_array_new_length(); }
}

// Of libstdc++ 9.
template HIDDEN std::stringstream::basic_stringstream();
template HIDDEN std::ostringstream::basic_ostringstream();
