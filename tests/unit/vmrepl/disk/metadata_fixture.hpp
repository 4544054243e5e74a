// The job of MetadataFixture: what the tests of the metadata files share: an identity, whole files
// as bytes, images torn at sectors, failures that need no broken disk, the vectors of the document.
#pragma once

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/unit/vmrepl/disk/disk_fixture.hpp"
#include "vmrepl/disk/metadata_header.hpp"
#include "vmrepl/disk/uring_loop.hpp"

namespace havm {

using Bytes = std::vector<std::byte>;
constexpr std::size_t sector_bytes = 512;

// The process may not write at or beyond this offset of any file.
class WriteLimit {
 public:
  explicit WriteLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~WriteLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  WriteLimit(const WriteLimit&) = delete;
  WriteLimit& operator=(const WriteLimit&) = delete;

 private:
  rlimit before_{};
};

class MetadataFixture : public DiskFixture {
 protected:
  void SetUp() override {
    auto loop = UringLoop::create(io_.get_executor());
    ASSERT_TRUE(loop) << loop.error().message;
    loop_ = std::move(loop).value();
  }

  void put(const Bytes& bytes) const {
    std::ofstream file(path_, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  // Changes the file in place: its lock and descriptors stay good.
  void poke(std::size_t at, const Bytes& bytes) const {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at));
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }

  static std::vector<std::size_t> changed_sectors(const Bytes& before, const Bytes& after) {
    EXPECT_EQ(before.size(), after.size());
    std::vector<std::size_t> sectors;
    for (std::size_t at = 0; at < before.size(); at += sector_bytes)
      if (!std::equal(before.begin() + static_cast<std::ptrdiff_t>(at),
                      before.begin() + static_cast<std::ptrdiff_t>(at + sector_bytes),
                      after.begin() + static_cast<std::ptrdiff_t>(at)))
        sectors.push_back(at);
    return sectors;
  }

  // Every image that a crash between `before` and `after` may leave, as far as there are few: each
  // prefix and each suffix of the changed sectors, each single one and all but each, and `chances`
  // subsets at random.
  static void for_each_torn(
      const Bytes& before, const Bytes& after, int chances,
      const std::function<void(const Bytes& image, bool none, bool all)>& look) {
    const auto changed = changed_sectors(before, after);
    ASSERT_FALSE(changed.empty());
    const auto try_one = [&](const std::function<bool(std::size_t)>& is_new) {
      Bytes image = before;
      std::size_t count = 0;
      for (std::size_t i = 0; i < changed.size(); ++i) {
        if (!is_new(i)) continue;
        ++count;
        const auto at = static_cast<std::ptrdiff_t>(changed[i]);
        std::copy_n(after.begin() + at, sector_bytes, image.begin() + at);
      }
      look(image, count == 0, count == changed.size());
    };
    const std::size_t step = 1 + changed.size() / 20;
    for (std::size_t cut = 0; cut <= changed.size(); cut += step) {
      try_one([&](std::size_t i) { return i < cut; });
      try_one([&](std::size_t i) { return i >= cut; });
      try_one([&](std::size_t i) { return i == cut; });
      try_one([&](std::size_t i) { return i != cut; });
      if (testing::Test::HasFailure()) return;
    }
    std::mt19937 random(7);
    for (int n = 0; n < chances && !testing::Test::HasFailure(); ++n)
      try_one([&](std::size_t) { return random() % 2 == 0; });
  }

  // Flags of the descriptor that this process has of the file; nothing when it has none.
  [[nodiscard]] std::optional<int> descriptor_flags() const {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      if (std::filesystem::read_symlink(entry.path(), gone) != std::filesystem::canonical(path_))
        continue;
      const int fd = std::stoi(entry.path().filename().string());
      return ::fcntl(fd, F_GETFD);
    }
    return std::nullopt;
  }
  [[nodiscard]] struct stat status() const {
    struct stat st {};
    EXPECT_EQ(::stat(path_.c_str(), &st), 0);
    return st;
  }

  static MetadataIdentity identity() {
    return {"f1b2c3d4-0000-4000-8000-000000000001",
            {{"vda", std::uint64_t{5} << 30}, {"vdb", (std::uint64_t{64} << 20) + 512}}};
  }

  std::shared_ptr<UringLoop> loop_;
  std::string path_ = directory_ + "/metadata";
};

// The hex bytes of the code block of docs/protocol/on-disk.md that follows the line starting with
// `title`, and zeroes up to `size`.
inline Bytes document_vector(const std::string& title, std::size_t size) {
  std::ifstream document(HAVM_ON_DISK_MD);
  std::string line;
  while (std::getline(document, line) && line.rfind(title, 0) != 0) {
  }
  while (std::getline(document, line) && line.rfind("```", 0) != 0) {
  }
  Bytes bytes;
  while (std::getline(document, line) && line.rfind("```", 0) != 0) {
    std::istringstream words(line);
    for (unsigned value = 0; words >> std::hex >> value;)
      bytes.push_back(static_cast<std::byte>(value));
  }
  EXPECT_FALSE(bytes.empty()) << "no vector '" << title << "' in the document";
  EXPECT_LE(bytes.size(), size);
  bytes.resize(size);
  return bytes;
}

}  // namespace havm
