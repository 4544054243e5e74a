// The job of VerifiedGuest: a guest that writes, zeroes, flushes and reads at random at an engine's
// NBD socket, and knows for each block what may stand there: the value last acknowledged, or one of
// those whose answer never came. It judges what it reads, and whole images.
//
// Guarantees
//  1. Its requests follow from the seed; their order of completion does not.
//  2. A block has at most one request in flight. A value that was seen is from then on the block's
//     value.
//  3. An error told to the guest is a violation; a lost server is none: its answers are unknown.
// One thread at a time: start() … stop() runs it on a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace havm {

class VerifiedGuest {
 public:
  static constexpr std::uint64_t block_bytes = 4096;
  static constexpr std::size_t in_flight_max = 8;

  VerifiedGuest(std::uint64_t disk_bytes, std::uint64_t seed);
  ~VerifiedGuest();
  VerifiedGuest(const VerifiedGuest&) = delete;
  VerifiedGuest& operator=(const VerifiedGuest&) = delete;

  // Goes on at this socket until stop() or until the server is lost.
  void start(const std::string& nbd_socket);
  // Starts nothing new and waits for what is in flight, then flushes. False when that took longer
  // than a guest would wait: it then counts as lost with its server.
  bool stop();

  [[nodiscard]] std::uint64_t acknowledged() const { return acknowledged_; }
  // Writes acknowledged so far reach `n`, the server is lost or this time is over.
  void wait_for_acknowledged(std::uint64_t n, std::chrono::milliseconds limit) const;

  // Not while it runs: every block of a whole image (or of what an NBD socket serves) is one of
  // those it may be, and no violation was seen before.
  testing::AssertionResult judge_image(const std::string& path);
  testing::AssertionResult judge_socket(const std::string& nbd_socket);

 private:
  struct Client;
  struct Request;
  enum class RequestKind : std::uint8_t { write, zero, read, flush };
  using Value = std::uint64_t;

  void run(const std::string& nbd_socket);
  RequestKind next_kind();
  void issue(Client& client, RequestKind kind);
  void ended(Request& request, int error);
  void violation(const std::string& what);
  void fill(std::span<std::byte> block, std::uint64_t number, Value value) const;
  bool settle(std::span<const std::byte> seen, std::uint64_t number);
  testing::AssertionResult judge(std::span<const std::byte> image);

  std::vector<std::set<Value>> possible_;  // of each block
  std::vector<bool> busy_;
  std::vector<std::string> violations_;
  std::mt19937_64 random_;
  Value next_value_ = 1;
  std::thread thread_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> running_ = false;
  std::atomic<std::uint64_t> acknowledged_ = 0;
  bool answered_all_ = true;
};

}  // namespace havm
