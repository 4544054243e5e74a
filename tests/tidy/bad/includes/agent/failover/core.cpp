#include <chrono>
#include <random>
#include <unistd.h>

#include "agent/failover/arbiter.hpp"

// A comment that says BootClock::now() and throw is harmless, so is "throw" in a string.
const char* text() { return "BootClock::now() throw"; }
long when() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
void fail() { throw 1; }
