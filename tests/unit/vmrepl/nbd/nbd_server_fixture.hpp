// The job of NbdServerTest: a server on a memory disk in a directory of its own, all in one thread.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>

#include <boost/asio/io_context.hpp>
#include <gtest/gtest.h>

#include "tests/unit/vmrepl/nbd/memory_block_service.hpp"
#include "tests/unit/vmrepl/nbd/nbd_test_client.hpp"
#include "vmrepl/nbd/nbd_server.hpp"

namespace havm::nbd_test {

inline Bytes random_bytes(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (std::byte& b : bytes)
    b = static_cast<std::byte>(1 + random() % 255);
  return bytes;
}

class NbdServerTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t disk_bytes = std::uint64_t{64} << 20;
  static constexpr std::uint32_t alignment = 512;

  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "havm-nbd-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    directory = name;
    options.socket_path = directory + "/vda.sock";
    options.export_name = "vda";
    options.label = "test vda";
    make_server();
  }

  void TearDown() override {
    server.reset();
    std::filesystem::remove_all(directory);
  }

  void make_server() {
    server.reset();
    server = std::make_unique<NbdServer>(io, service, options);
    const auto started = server->start();
    ASSERT_TRUE(started) << started.error().message;
  }

  NbdTestClient connect() { return {io, options.socket_path}; }
  bool until(const std::function<bool()>& condition) { return run_until(io, condition); }
  // Lets the server do what it can do now.
  void settle() {
    io.restart();
    io.run_for(std::chrono::milliseconds(20));
  }

  boost::asio::io_context io;
  MemoryBlockService service{io, disk_bytes, alignment};
  std::string directory;
  NbdServerOptions options;
  std::unique_ptr<NbdServer> server;
};

}  // namespace havm::nbd_test
