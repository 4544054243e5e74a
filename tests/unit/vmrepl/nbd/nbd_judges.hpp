// The job of the judges: let programs that others wrote (libnbd's nbdinfo and nbdcopy, QEMU's
// qemu-img and qemu-io, fio) say whether an NBD server on a unix socket is right. Usable on any
// server: the test server beside this file, the engine, QEMU's own. Programs are started by argv,
// never by a shell.
//
// A judge returns success or a failure with the command and what it said. Judges that write destroy
// what is on the disk. Blocking; each program has a time limit, then it is killed and has failed.
// A test that needs a program begins with HAVM_NEED_PROGRAM("fio"), a loud skip when it is missing.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace havm {

struct ProgramRun {
  std::string command;  // for messages
  int exit_code = -1;   // 128 + signal when killed, -1 when it could not be started
  std::string output;
  std::string errors;
};

inline constexpr std::chrono::seconds judge_time_limit{120};

// Runs argv[0] (searched in PATH) in `directory` (empty: here) with stdin from /dev/null.
ProgramRun run_program(const std::vector<std::string>& argv, const std::string& directory = {},
                       std::chrono::seconds limit = judge_time_limit);
bool program_exists(const std::string& name);

// nbd+unix:///NAME?socket=PATH; the path must need no escaping.
std::string nbd_uri(const std::string& socket, const std::string& export_name = {});

struct NbdExpected {
  std::uint64_t size_bytes = 0;
  std::uint32_t minimum_block_bytes = 0;
  std::string export_name;  // what the server calls it
  std::string asked_name;   // what the client asks for; "" is the default export
};
// nbdinfo --json: size, block sizes, structured replies, base:allocation, and each flag: flush,
// fua, trim, zero, df, multi_conn offered; cache, fast_zero, read-only, rotational not.
::testing::AssertionResult judge_nbdinfo(const std::string& socket, const NbdExpected& expected);

struct NbdMapPiece {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool hole = false;

  bool operator==(const NbdMapPiece&) const = default;
};
// nbdinfo --map: the pieces are exactly these.
::testing::AssertionResult judge_nbdinfo_map(const std::string& socket,
                                             const std::vector<NbdMapPiece>& expected);

// qemu-img compare of the whole export and a raw file.
::testing::AssertionResult judge_same_content(const std::string& socket, const std::string& file);

// nbdcopy of a file of data, zeroes and holes to the export and back; both compared byte by byte,
// and by qemu-img. `scratch` is an existing directory with room for twice the size.
::testing::AssertionResult judge_copy_both_ways(const std::string& socket, std::uint64_t size_bytes,
                                                const std::string& scratch);

// qemu-io: patterns written, zeroed (with and without unmapping) and discarded, each read back,
// with flushes, FUA, unaligned edges, and many requests under way. Needs 16 MiB.
::testing::AssertionResult judge_qemu_io_patterns(const std::string& socket);

// fio's nbd engine: random reads and writes of mixed sizes, then every block verified by CRC32C,
// over the first `size_bytes`. `scratch` is an existing directory.
::testing::AssertionResult judge_fio_verify(const std::string& socket, std::uint64_t size_bytes,
                                            const std::string& scratch);

}  // namespace havm

#define HAVM_NEED_PROGRAM(name)                                                          \
  do {                                                                                   \
    if (!::havm::program_exists(name))                                                   \
      GTEST_SKIP() << "NOT JUDGED: the program " << (name) << " is missing; install it"; \
  } while (false)
