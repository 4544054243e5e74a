// The job of lossyfs: the disk of a lab host. It shows a backing directory at a mount point and
// keeps what is written in its own memory until somebody flushes it, so that SIGKILL is a power
// cut: the backing directory then holds what was flushed, and a random part of the rest.
//
// SIGTERM and an unmount are an orderly end: everything is flushed first. Runs in the foreground,
// needs root and /dev/fuse.
#include <cerrno>
#include <cstring>
#include <iostream>
#include <string>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/lab/lossyfs/inode_table.hpp"
#include "tests/lab/lossyfs/operations.hpp"

namespace {

using namespace havm::lab;

struct Options {
  std::string backing;
  std::string mount_point;
  double keep_chance = 0.0;
  std::uint64_t seed = 1;
  bool honest = false;
  std::uint64_t memory_mib = 256;
};

int fail(const std::string& text) {
  std::cerr << "lossyfs: error: " << text << std::endl;
  return 1;
}

// Each inode that the kernel knows is an open file.
void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void announce(const Options& options) {
  std::cerr << "lossyfs: " << options.backing << " at " << options.mount_point
            << (options.honest ? ", loses nothing" : ", loses what is not flushed")
            << ", keep chance " << options.keep_chance << ", seed " << options.seed << std::endl;
}

// Until SIGTERM or an unmount; 0 or an error value.
int serve(fuse_session& session) {
  fuse_loop_config* config = fuse_loop_cfg_create();
  const int result = fuse_session_loop_mt(&session, config);
  fuse_loop_cfg_destroy(config);
  return result > 0 ? 0 : result;  // a signal's number is an orderly end
}

int run(const Options& options) {
  havm::UniqueFd backing(::open(options.backing.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!backing.valid())
    return fail("cannot open directory " + options.backing + ": " + std::strerror(errno));
  Medium medium(options.honest, options.keep_chance, options.seed);
  medium.bytes_max = options.memory_mib << 20;
  InodeTable table(medium, std::move(backing));

  std::string program = "lossyfs";
  std::string option = "-o";
  std::string values = "allow_other,default_permissions,fsname=lossyfs,subtype=lossyfs";
  char* argv[] = {program.data(), option.data(), values.data()};
  fuse_args args{3, argv, 0};
  fuse_session* session =
      fuse_session_new(&args, &lossy_operations(), sizeof(fuse_lowlevel_ops), &table);
  fuse_opt_free_args(&args);
  if (session == nullptr) return fail("cannot make a FUSE session");
  int status = 0;
  if (fuse_set_signal_handlers(session) != 0 ||
      fuse_session_mount(session, options.mount_point.c_str()) != 0) {
    status = fail("cannot mount at " + options.mount_point +
                  "; it needs root and a kernel with FUSE (/dev/fuse)");
  } else {
    announce(options);
    if (serve(*session) != 0) status = fail("the FUSE session broke");
    fuse_session_unmount(session);
  }
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  if (const int error = table.flush_all(); error != 0)
    status = fail(std::string("cannot flush at the end: ") + std::strerror(error));
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"a disk for lab hosts that loses what was not flushed", "lossyfs"};
  app.add_option("BACKING", options.backing, "directory with what survives")->required();
  app.add_option("MOUNTPOINT", options.mount_point, "where it is shown")->required();
  app.add_option("--keep-chance", options.keep_chance,
                 "chance of each unflushed write to survive, wholly or torn at sectors")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", options.seed, "of what survives unflushed");
  app.add_option("--memory-mib", options.memory_mib,
                 "volatile data beyond this is written back, as a kernel does");
  app.add_flag("--honest", options.honest, "lose nothing: for the test of the tests");
  CLI11_PARSE(app, argc, argv);
  ::umask(0);  // the kernel has applied the caller's
  raise_file_limit();
  return run(options);
}
