// ThreadSanitizer cannot see the locks of GLib (futexes of its own, not instrumented), on which
// libvirt's event loop stands. What the two touch themselves is left out; our own code called by
// them is still watched.
#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:libglib-2.0.so.0\nrace:libvirt.so.0\n";
}
#endif
