// The server as programs of others see it, in a process of its own: the disk in memory answering at
// once, in memory answering out of order, and a file.
#include "tests/unit/vmrepl/nbd/nbd_judges.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char** environ;  // NOLINT: POSIX demands this declaration

namespace havm {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t disk_bytes = std::uint64_t{48} << 20;

struct Setup {
  const char* name;
  std::uint32_t alignment;
  bool file;
  bool shuffled;
};

class NbdJudged : public ::testing::TestWithParam<Setup> {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "havm-judge-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory = name;
    socket = directory + "/disk.sock";
    disk_file = directory + "/disk.img";
    start_server();
  }

  void TearDown() override {
    stop_server();
    fs::remove_all(directory);
  }

  void start_server() {
    std::vector<std::string> argv{HAVM_NBD_MEMORY_SERVER,
                                  "--socket",
                                  socket,
                                  "--export",
                                  "vda",
                                  "--alignment",
                                  std::to_string(GetParam().alignment)};
    if (GetParam().shuffled) argv.emplace_back("--shuffled");
    if (GetParam().file) {
      std::ofstream(disk_file).close();
      fs::resize_file(disk_file, disk_bytes);
      argv.insert(argv.end(), {"--file", disk_file});
    } else {
      argv.insert(argv.end(), {"--size", std::to_string(disk_bytes)});
    }
    std::vector<char*> words;
    for (std::string& word : argv)
      words.push_back(word.data());
    words.push_back(nullptr);
    ASSERT_EQ(::posix_spawn(&server, words[0], nullptr, nullptr, words.data(), environ), 0);
    for (int i = 0; i < 500 && !fs::is_socket(socket); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_TRUE(fs::is_socket(socket)) << "the server did not come up";
  }

  // A sanitizer's complaint is the exit code of the server.
  void stop_server() {
    if (server <= 0) return;
    ::kill(server, SIGTERM);
    int status = 0;
    ASSERT_EQ(::waitpid(server, &status, 0), server);
    server = -1;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
    EXPECT_FALSE(fs::exists(socket));
  }

  std::string directory;
  std::string socket;
  std::string disk_file;
  pid_t server = -1;
};

TEST_P(NbdJudged, ByNbdinfo) {
  HAVM_NEED_PROGRAM("nbdinfo");
  EXPECT_TRUE(judge_nbdinfo(socket, {disk_bytes, GetParam().alignment, "vda", ""}));
  EXPECT_TRUE(judge_nbdinfo(socket, {disk_bytes, GetParam().alignment, "vda", "vda"}));
  EXPECT_FALSE(judge_nbdinfo(socket, {disk_bytes, GetParam().alignment, "vdb", "vdb"}));
  EXPECT_FALSE(judge_nbdinfo(socket, {disk_bytes + 512, GetParam().alignment, "vda", ""}));
  const auto list = run_program({"nbdinfo", "--list", "--json", nbd_uri(socket)});
  EXPECT_EQ(list.exit_code, 0) << list.errors;
  EXPECT_NE(list.output.find("\"vda\""), std::string::npos) << list.output;
}

TEST_P(NbdJudged, ByNbdinfoMap) {
  HAVM_NEED_PROGRAM("nbdinfo");
  HAVM_NEED_PROGRAM("qemu-io");
  EXPECT_TRUE(judge_nbdinfo_map(socket, {{0, disk_bytes, true}}));
  const auto written = run_program(
      {"qemu-io", "-f", "raw", "-c", "write -P 0x11 1M 64k", "-c", "flush", nbd_uri(socket)});
  ASSERT_EQ(written.exit_code, 0) << written.errors;
  constexpr std::uint64_t mib = 1U << 20;
  constexpr std::uint64_t end = mib + 65536;
  const std::vector<NbdMapPiece> expected{
      {0, mib, true}, {mib, 65536, false}, {end, disk_bytes - end, true}};
  EXPECT_TRUE(judge_nbdinfo_map(socket, expected));
  EXPECT_FALSE(judge_nbdinfo_map(socket, {{0, disk_bytes, true}}));
}

TEST_P(NbdJudged, ByNbdcopyAndQemuImg) {
  HAVM_NEED_PROGRAM("nbdcopy");
  HAVM_NEED_PROGRAM("qemu-img");
  ASSERT_TRUE(judge_copy_both_ways(socket, disk_bytes, directory));
  const std::string source = directory + "/copy-source.img";
  // The judge must be able to say no: one byte is changed in the file.
  std::fstream file(source, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(20'000'000);
  const char old = static_cast<char>(file.get());
  file.seekp(20'000'000);
  file.put(static_cast<char>(old ^ 1));
  file.close();
  EXPECT_FALSE(judge_same_content(socket, source));
}

TEST_P(NbdJudged, ByQemuIo) {
  HAVM_NEED_PROGRAM("qemu-io");
  EXPECT_TRUE(judge_qemu_io_patterns(socket));
}

TEST_P(NbdJudged, ByFio) {
  HAVM_NEED_PROGRAM("fio");
  EXPECT_TRUE(judge_fio_verify(socket, std::uint64_t{24} << 20, directory));
}

TEST_P(NbdJudged, ByAClientKilledInTheMiddle) {
  HAVM_NEED_PROGRAM("fio");
  HAVM_NEED_PROGRAM("nbdinfo");
  const auto killed = run_program(
      {"fio", "--name=killed", "--ioengine=nbd", "--uri=" + nbd_uri(socket), "--rw=randrw",
       "--bs=128k", "--iodepth=32", "--size=32M", "--time_based", "--runtime=60"},
      directory, std::chrono::seconds(1));
  EXPECT_EQ(killed.exit_code, 128 + SIGKILL);
  EXPECT_TRUE(judge_nbdinfo(socket, {disk_bytes, GetParam().alignment, "vda", ""}));
}

INSTANTIATE_TEST_SUITE_P(Servers, NbdJudged,
                         ::testing::Values(Setup{"memory_512", 512, false, false},
                                           Setup{"memory_shuffled_4096", 4096, false, true},
                                           Setup{"file_512", 512, true, false}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace havm
