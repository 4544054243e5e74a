// The job of DiskFixture: a scratch directory on the build's filesystem, an executor, and ways to
// run one disk request to its end.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <gtest/gtest.h>
#include <unistd.h>

#include "vmrepl/base/buffer.hpp"
#include "vmrepl/disk/replica_disk.hpp"

namespace havm {

class DiskFixture : public testing::Test {
 protected:
  static constexpr std::chrono::seconds patience{60};

  DiskFixture() {
    std::string name = std::string(HAVM_TEST_DIR) + "/scratch_XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~DiskFixture() override { std::filesystem::remove_all(directory_); }

  std::string make_file(const std::string& name, std::uint64_t size) {
    const std::string path = directory_ + "/" + name;
    std::ofstream(path).close();
    std::filesystem::resize_file(path, size);
    return path;
  }

  // Runs the executor until `condition`, or fails the test after `patience`.
  bool run_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "nothing happened for too long";
        return false;
      }
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(100));
    }
    return true;
  }

  // The errno value that `start` is answered with; also checks that the answer comes later and
  // once.
  int result_of(const std::function<void(ReplicaDisk::Done)>& start) {
    const auto answers = std::make_shared<std::vector<int>>();
    start([answers](int error) { answers->push_back(error); });
    EXPECT_TRUE(answers->empty()) << "done was called from inside the call";
    if (!run_until([&] { return !answers->empty(); })) return -1;
    EXPECT_EQ(answers->size(), 1U);
    return answers->front();
  }
  int write(ReplicaDisk& disk, std::uint64_t offset, std::span<const std::byte> from,
            bool fua = false) {
    return result_of([&](auto done) { disk.write(offset, from, fua, std::move(done)); });
  }
  int read(ReplicaDisk& disk, std::uint64_t offset, std::span<std::byte> into) {
    return result_of([&](auto done) { disk.read(offset, into, std::move(done)); });
  }
  int zero(ReplicaDisk& disk, std::uint64_t offset, std::uint64_t length, bool may_unmap) {
    return result_of([&](auto done) { disk.zero(offset, length, may_unmap, std::move(done)); });
  }
  int flush(ReplicaDisk& disk) {
    return result_of([&](auto done) { disk.flush(std::move(done)); });
  }

  static Buffer filled(std::size_t size, unsigned seed) {
    Buffer buffer(size);
    std::mt19937 random(seed);
    for (std::byte& b : buffer.span())
      b = static_cast<std::byte>(random());
    return buffer;
  }
  static bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
    return std::ranges::equal(a, b);
  }
  static std::vector<std::byte> content_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto bytes = std::as_bytes(std::span<const char>(text));
    return {bytes.begin(), bytes.end()};
  }

  std::string directory_;
  boost::asio::io_context io_;
};

}  // namespace havm
