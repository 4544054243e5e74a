#include "tests/unit/vmrepl/nbd/nbd_judges.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "vmrepl/base/unique_fd.hpp"

extern char** environ;  // NOLINT: POSIX demands this declaration

namespace havm {
namespace {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;
using Json = nlohmann::json;
namespace fs = std::filesystem;

// A file that is gone when it is closed: the program's output goes there, so no pipe can fill up.
UniqueFd nameless_file() {
  return UniqueFd(::open(fs::temp_directory_path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
}

std::string content_of(int fd) {
  std::string text;
  char chunk[4096];
  off_t at = 0;
  for (ssize_t n = 0; (n = ::pread(fd, chunk, sizeof chunk, at)) > 0; at += n)
    text.append(chunk, static_cast<std::size_t>(n));
  return text;
}

int spawn(const std::vector<std::string>& argv, const std::string& directory, int out, int err,
          pid_t& pid) {
  std::vector<char*> words;
  for (const std::string& word : argv)
    words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  if (!directory.empty()) posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
  const int error = ::posix_spawnp(&pid, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

int wait_for(pid_t pid, std::chrono::seconds limit) {
  const UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  pollfd ended{handle.get(), POLLIN, 0};
  const auto limit_ms = std::chrono::milliseconds(limit).count();
  if (::poll(&ended, 1, static_cast<int>(limit_ms)) != 1) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

AssertionResult failed(const ProgramRun& run, const std::string& why) {
  return AssertionFailure() << why << "\n  command: " << run.command
                            << "\n  exit code: " << run.exit_code << "\n  output: " << run.output
                            << "\n  errors: " << run.errors;
}

AssertionResult must_succeed(const ProgramRun& run) {
  if (run.exit_code == 0) return AssertionSuccess();
  return failed(run, "the judge says no");
}

bool same_bytes(const std::string& left, const std::string& right) {
  if (fs::file_size(left) != fs::file_size(right)) return false;
  std::ifstream a(left, std::ios::binary);
  std::ifstream b(right, std::ios::binary);
  return std::equal(std::istreambuf_iterator<char>(a), {}, std::istreambuf_iterator<char>(b));
}

// Data, explicit zeroes and holes in turn, in pieces of odd sizes.
void make_patchwork(const std::string& path, std::uint64_t size_bytes) {
  std::mt19937_64 random(size_bytes);  // the same file for the same size
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  std::uint64_t at = 0;
  for (unsigned kind = 0; at < size_bytes; ++kind) {
    const std::uint64_t piece = std::min<std::uint64_t>(4096 + random() % 300'000, size_bytes - at);
    if (kind % 3 == 0) {
      std::string data(piece, '\0');
      for (char& c : data)
        c = static_cast<char>(random());
      file.write(data.data(), static_cast<std::streamsize>(data.size()));
    } else if (kind % 3 == 1) {
      const std::string zeroes(piece, '\0');
      file.write(zeroes.data(), static_cast<std::streamsize>(zeroes.size()));
    } else {
      file.seekp(static_cast<std::streamoff>(piece), std::ios::cur);
    }
    at += piece;
  }
  file.close();
  fs::resize_file(path, size_bytes);
}

AssertionResult check_field(const ProgramRun& run, const Json& object, const std::string& key,
                            const Json& expected) {
  const Json actual = object.value(key, Json());
  if (actual == expected) return AssertionSuccess();
  return failed(run, key + " is " + actual.dump() + ", expected " + expected.dump());
}

}  // namespace

ProgramRun run_program(const std::vector<std::string>& argv, const std::string& directory,
                       std::chrono::seconds limit) {
  ProgramRun run;
  for (const std::string& word : argv)
    run.command += (run.command.empty() ? "" : " ") + word;
  const UniqueFd out = nameless_file();
  const UniqueFd err = nameless_file();
  pid_t pid = -1;
  if (const int error = spawn(argv, directory, out.get(), err.get(), pid); error != 0) {
    run.errors = "cannot start it: " + std::string(std::strerror(error));
    return run;
  }
  run.exit_code = wait_for(pid, limit);
  run.output = content_of(out.get());
  run.errors = content_of(err.get());
  return run;
}

bool program_exists(const std::string& name) {
  std::istringstream path(std::getenv("PATH") == nullptr ? "" : std::getenv("PATH"));
  for (std::string directory; std::getline(path, directory, ':');)
    if (::access((directory + "/" + name).c_str(), X_OK) == 0) return true;
  return false;
}

std::string nbd_uri(const std::string& socket, const std::string& export_name) {
  return "nbd+unix:///" + export_name + "?socket=" + socket;
}

AssertionResult judge_nbdinfo(const std::string& socket, const NbdExpected& expected) {
  const ProgramRun run = run_program({"nbdinfo", "--json", nbd_uri(socket, expected.asked_name)});
  if (auto ok = must_succeed(run); !ok) return ok;
  const Json info = Json::parse(run.output, nullptr, false);
  if (!info.is_object() || !info.contains("exports") || info["exports"].size() != 1)
    return failed(run, "not the JSON of one export");
  const Json& served = info["exports"][0];
  const std::vector<std::pair<std::string, Json>> about_server{
      {"protocol", "newstyle-fixed"}, {"TLS", false}, {"structured", true}};
  for (const auto& [key, value] : about_server)
    if (auto ok = check_field(run, info, key, value); !ok) return ok;
  const std::vector<std::pair<std::string, Json>> about_export{
      {"export-name", expected.export_name},
      {"export-size", expected.size_bytes},
      {"block_size_minimum", expected.minimum_block_bytes},
      {"block_size_preferred", 4096},
      {"block_size_maximum", 32U << 20},
      {"contexts", Json::array({"base:allocation"})},
      {"can_flush", true},
      {"can_fua", true},
      {"can_trim", true},
      {"can_zero", true},
      {"can_df", true},
      {"can_multi_conn", true},
      {"can_cache", false},
      {"can_fast_zero", false},
      {"is_read_only", false},
      {"is_rotational", false}};
  for (const auto& [key, value] : about_export)
    if (auto ok = check_field(run, served, key, value); !ok) return ok;
  return AssertionSuccess();
}

AssertionResult judge_nbdinfo_map(const std::string& socket,
                                  const std::vector<NbdMapPiece>& expected) {
  const ProgramRun run = run_program({"nbdinfo", "--map", "--json", nbd_uri(socket)});
  if (auto ok = must_succeed(run); !ok) return ok;
  const Json map = Json::parse(run.output, nullptr, false);
  if (!map.is_array()) return failed(run, "not a JSON array");
  constexpr std::uint32_t hole_and_zero = 3;
  std::vector<NbdMapPiece> pieces;
  for (const Json& piece : map) {
    const std::uint32_t type = piece.value("type", UINT32_MAX);
    if (type != 0 && type != hole_and_zero) return failed(run, "a piece of unexpected type");
    pieces.push_back({piece.value("offset", UINT64_MAX), piece.value("length", UINT64_MAX),
                      type == hole_and_zero});
  }
  return pieces == expected ? AssertionSuccess() : failed(run, "an unexpected map");
}

AssertionResult judge_same_content(const std::string& socket, const std::string& file) {
  return must_succeed(
      run_program({"qemu-img", "compare", "-f", "raw", "-F", "raw", file, nbd_uri(socket)}));
}

AssertionResult judge_copy_both_ways(const std::string& socket, std::uint64_t size_bytes,
                                     const std::string& scratch) {
  const std::string source = scratch + "/copy-source.img";
  const std::string copy = scratch + "/copy-back.img";
  make_patchwork(source, size_bytes);
  fs::remove(copy);
  if (auto ok = must_succeed(run_program({"nbdcopy", "--flush", source, nbd_uri(socket)})); !ok)
    return ok;
  const ProgramRun back = run_program({"nbdcopy", nbd_uri(socket), copy});
  if (auto ok = must_succeed(back); !ok) return ok;
  if (!same_bytes(source, copy)) return failed(back, "what came back is not what was copied");
  return judge_same_content(socket, source);
}

AssertionResult judge_qemu_io_patterns(const std::string& socket) {
  const std::vector<std::string> commands{
      "write -P 0xa1 0 4M", "write -f -P 0xa2 4M 64k", "flush", "read -P 0xa1 0 4M",
      "read -P 0xa2 4M 64k",
      // Edges inside a block: QEMU reads, changes and writes whole blocks.
      "write -P 0xa3 1000 3000", "read -P 0xa1 0 1000", "read -P 0xa3 1000 3000",
      "read -P 0xa1 4000 1000", "write -z 1M 512k", "read -P 0 1M 512k", "read -P 0xa1 1536k 512k",
      "write -z -u 2M 512k", "read -P 0 2M 512k", "read -P 0xa1 2560k 512k", "write -z -f 3M 64k",
      "read -P 0 3M 64k", "discard 8M 1M", "write -P 0xa4 8M 1M", "read -P 0xa4 8M 1M",
      // Many at a time.
      "aio_write -P 0xb1 10M 128k", "aio_write -P 0xb2 10368k 128k", "aio_write -P 0xb3 11M 1M",
      "aio_write -z 12M 1M", "aio_flush", "aio_read -P 0xb1 10M 128k",
      "aio_read -P 0xb2 10368k 128k", "aio_read -P 0xb3 11M 1M", "aio_read -P 0 12M 1M",
      "aio_flush"};
  std::vector<std::string> argv{"qemu-io", "-f", "raw", "-d", "unmap"};
  for (const std::string& command : commands) {
    argv.emplace_back("-c");
    argv.push_back(command);
  }
  argv.push_back(nbd_uri(socket));
  const ProgramRun run = run_program(argv);
  if (auto ok = must_succeed(run); !ok) return ok;
  // Asynchronous commands tell their failures in words alone.
  const std::string said = run.output + run.errors;
  if (said.find("verification failed") != std::string::npos ||
      said.find("failed:") != std::string::npos)
    return failed(run, "wrong data or a failed request");
  return AssertionSuccess();
}

AssertionResult judge_fio_verify(const std::string& socket, std::uint64_t size_bytes,
                                 const std::string& scratch) {
  const ProgramRun run = run_program(
      {"fio", "--name=judge", "--ioengine=nbd", "--uri=" + nbd_uri(socket), "--rw=randrw",
       "--bssplit=4k/60:8k/20:64k/15:256k/5", "--size=" + std::to_string(size_bytes),
       "--iodepth=16", "--fsync=32", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
       "--verify_state_save=0", "--randseed=5", "--output-format=json"},
      scratch);
  if (auto ok = must_succeed(run); !ok) return ok;
  const std::size_t start = run.output.find('{');
  const Json report =
      start == std::string::npos ? Json() : Json::parse(run.output.substr(start), nullptr, false);
  if (!report.is_object() || !report.contains("jobs") || report["jobs"].size() != 1)
    return failed(run, "not the report of one job");
  const Json& job = report["jobs"][0];
  // fio has been seen to end well without having done anything: count.
  const bool worked = job["error"] == 0 && job["write"]["total_ios"] > 0 &&
                      job["read"]["io_bytes"] >= job["write"]["io_bytes"];
  return worked ? AssertionSuccess() : failed(run, "an error, or nothing verified");
}

}  // namespace havm
